"""`v1a` signatures, held against the vectors of the RFCs and against implementations that are not ours."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import ed25519
from dispatcher.errors import InvalidInput, SignatureInvalid
from dispatcher.model import Status
from dispatcher.rules.callback import Claimed
from dispatcher.rules.request_headers import request_headers
from dispatcher.rules.signature_diagnosis import diagnose
from dispatcher.rules.subscription import Secret, SigningKey
from dispatcher.rules.workspace import Workspace
from dispatcher.signing import new_secret, signed_content, verify
from tests.verifiers import VERIFIERS, by_cryptography

SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
EMPTY_SIGNED = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)
"""RFC 8032 §7.1, test 1; RFC 8037 appendix A has the same key."""
KEY, OTHER = ed25519.new_key(SEED), ed25519.new_key(b"o" * 32)
SECRET = new_secret(b"s" * 32)
NOW = 1_781_010_297
BODY = '{"eventId":"event-1","src":"Zürich"}'.encode()
URL = "https://a.example/hooks"


def headers(*keys: str, now_ms: int = NOW * 1000, **changes: str) -> dict[str, str]:
    """The headers of an attempt for a subscription with these keys, with some of `webhook-…` changed."""
    signing = tuple(SigningKey(key, 1) for key in keys)
    acme = Workspace("acme", "zeckta", URL, (Secret(SECRET, 1),), 1, "r1", signing_keys=signing)
    claimed = Claimed("event-1", 1, 1, now_ms + 1, "MESSAGE_SENT", Status.SENT, "m1", URL, BODY)
    return request_headers(claimed, BODY, acme, now_ms, "agent") | {
        f"webhook-{name}": value for name, value in changes.items()
    }


def refusal(given: dict[str, str], public: str, body: bytes = BODY) -> str:
    """Why `verify` refuses."""
    with pytest.raises(SignatureInvalid) as caught:
        verify(given, body, public, now=NOW)
    return str(caught.value)


def test_vectors_of_the_rfcs() -> None:
    """Key pair and signature are RFC 8032's, JWK and thumbprint RFC 8037's."""
    assert base64.b64decode(KEY.removeprefix("whsk_")) == SEED + PUBLIC
    assert ed25519.public_of(KEY) == "whpk_" + base64.b64encode(PUBLIC).decode()
    assert ed25519.sign(KEY, b"") == "v1a," + base64.b64encode(EMPTY_SIGNED).decode()
    kid = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert ed25519.as_jwk(ed25519.public_of(KEY)) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": kid,
        "use": "sig",
        "alg": "EdDSA",
    }
    assert ed25519.thumbprint(ed25519.public_of(KEY)) == kid


@pytest.mark.parametrize("language", VERIFIERS)
def test_others_verify_what_we_sign(language: str, tmp_path: Path) -> None:
    """An implementation that is not ours takes the signature of a request, each of two, and none of another body or key."""
    verifies = VERIFIERS[language](tmp_path)
    ours, other = (ed25519.as_jwk(ed25519.public_of(key)) for key in (KEY, OTHER))
    assert verifies(ours, headers(KEY), BODY)
    assert verifies(ours, headers(OTHER, KEY), BODY)
    assert verifies(other, headers(OTHER, KEY), BODY)
    assert not verifies(other, headers(KEY), BODY)
    assert not verifies(ours, headers(KEY), BODY + b" ")
    assert not verifies(ours, headers(KEY, id="event-2"), BODY)


@given(seed=st.binary(min_size=32, max_size=32), body=st.binary(), at=st.integers(0, 253_402_300_799))
def test_any_key_and_body(seed: bytes, body: bytes, at: int) -> None:
    """For every key, body and time another implementation takes our signature, and so do we."""
    key = ed25519.new_key(seed)
    signature = ed25519.sign(key, signed_content("e", at, body))
    given = {"webhook-id": "e", "webhook-timestamp": str(at), "webhook-signature": signature}
    public = ed25519.public_of(key)
    assert by_cryptography(ed25519.as_jwk(public), given, body)
    assert ed25519.verifies(public, signature, signed_content("e", at, body))


def test_v1_stays_beside_v1a() -> None:
    """A receiver that knows the secret alone verifies as before; without keys there is no `v1a`."""
    assert [one.split(",")[0] for one in headers(KEY, OTHER)["webhook-signature"].split()] == [
        "v1",
        "v1a",
        "v1a",
    ]
    assert verify(headers(KEY), BODY, SECRET, now=NOW)["eventId"] == "event-1"
    assert "v1a," not in headers()["webhook-signature"]


def test_verify_takes_a_public_key() -> None:
    """`dispatcher.verify` with a `whpk_` key: each of two, and not the body of another."""
    for key in (KEY, OTHER):
        assert verify(headers(KEY, OTHER), BODY, ed25519.public_of(key), now=NOW)["eventId"] == "event-1"
    public = ed25519.public_of(KEY)
    assert "the public key is another one" in refusal(headers(OTHER), public)
    assert "the public key is another one" in refusal(headers(KEY), public, BODY + b" ")
    assert refusal(headers(), public) == "webhook-signature has no v1a signature"
    assert "s old" in refusal(headers(KEY, timestamp=str(NOW - 301)), public)


def test_diagnosed() -> None:
    """What `dispatcher listen` says: nothing of what the public key verifies, else why it does not."""
    public, other = (ed25519.public_of(key) for key in (KEY, OTHER))
    assert diagnose(headers(KEY), BODY, [public], now=NOW) is None
    assert diagnose(headers(KEY), BODY, [other], now=NOW) == (
        "no signature matches: the public key is another one, or the body is not the bytes that were sent"
    )
    assert "line ends" in str(diagnose(headers(KEY), BODY + b"\n", [public], now=NOW))


@pytest.mark.parametrize("bad", ["v1a,", "v1a,AAAA", "v1a,ü", "v1a,%", "v1,AAAA v1a,AAAA"])
def test_a_malformed_signature(bad: str) -> None:
    """It is refused, and not raised into the receiver."""
    assert "no signature matches" in refusal(headers(KEY, signature=bad), ed25519.public_of(KEY))


@pytest.mark.parametrize(
    ("public", "says"),
    [
        ("whpk_", "32 bytes; this one 0"),
        ("whpk_AAAA", "32 bytes; this one 3"),
        ("whpk_%", "is base64"),
        (KEY, "a secret starts with whsec_"),
    ],
)
def test_a_malformed_public_key(public: str, says: str) -> None:
    """The error says what is wrong, and never shows a key."""
    with pytest.raises(InvalidInput, match=says) as caught:
        verify(headers(KEY), BODY, public, now=NOW)
    assert KEY.removeprefix("whsk_") not in str(caught.value)


def test_many_signatures_cost_no_more() -> None:
    """A request with very many `v1a` signatures has the first ten tried."""
    good = headers(KEY)["webhook-signature"].split()[1]
    public = ed25519.public_of(KEY)
    assert verify(headers(signature=" ".join([*["v1a,AAAA"] * 9, good])), BODY, public, now=NOW)
    assert "no signature" in refusal(headers(signature=" ".join([*["v1a,AAAA"] * 10, good])), public)


def test_keys_are_hidden() -> None:
    """A key does not show in `repr`."""
    assert KEY.removeprefix("whsk_") not in repr(SigningKey(KEY, 1))


BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (Path(__file__).parents[2] / "docs" / "customers.md").read_text(), re.M | re.S
)
JS_CALL = """
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(String(given.map(([headers, body, jwk]) => verifyV1a(headers, Buffer.from(body), jwk))));
"""
CASES = [
    (headers(KEY), BODY),
    (headers(OTHER, KEY), BODY),
    (headers(OTHER), BODY),
    (headers(KEY), BODY + b" "),
]


def code(language: str) -> str:
    """The function for `v1a` that docs/customers.md shows."""
    [found] = [block for name, block in BLOCKS if name == language and "v1a" in block]
    return str(found)


def test_the_customers_python() -> None:
    """The function in docs/customers.md takes what the key signed, and nothing else."""
    names: dict[str, Any] = {}
    exec(code("python"), names)
    public = ed25519.public_of(KEY)
    assert [names["verify_v1a"](*case, public) for case in CASES] == [True, True, False, False]


def test_the_customers_javascript() -> None:
    """So does the one for Node."""
    if not (node := shutil.which("node")):
        pytest.skip("no node here")
    jwk = ed25519.as_jwk(ed25519.public_of(KEY))
    given = json.dumps([[given, body.decode(), jwk] for given, body in CASES])
    done = subprocess.run(
        [node, "-e", code("js") + JS_CALL],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "true,true,false,false"
