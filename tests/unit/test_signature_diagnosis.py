"""Why a callback does not verify."""

import pytest

from dispatcher.rules.signature_diagnosis import diagnose
from dispatcher.signing import key_of, new_secret, webhook_headers

OURS, OTHER = new_secret(b"o" * 32), new_secret(b"x" * 32)
NOW = 1_800_000_000
BODY = b'{"cost":0.10,"text":"caf\xc3\xa9"}'


def signed(body: bytes = BODY, secret: str = OURS) -> dict[str, str]:
    """Headers as the dispatcher makes them."""
    return webhook_headers([key_of(secret)], "e1", NOW, body)


def test_a_good_one() -> None:
    """A callback that any of the secrets verifies has nothing wrong."""
    assert None is diagnose(signed(), BODY, [OTHER, OURS], now=NOW)


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        (signed() | {"webhook-signature": ""}, BODY, "header webhook-signature is missing"),
        (signed() | {"webhook-timestamp": str(NOW - 600)}, BODY, "600 s old"),
        (signed() | {"webhook-timestamp": str(NOW + 600)}, BODY, "600 s in the future"),
        (signed(secret=OTHER), BODY, "wrong secret: it is signed with the other one"),
        (signed(), BODY + b"\r\n", "the body was changed on its way: line ends or blanks"),
        (signed(), b'{"cost": 0.10, "text": "caf\xc3\xa9"}', "read as JSON and written again"),
        (signed(), b'{"cost":0.10,"text":"caf\\u00e9"}', "read as JSON and written again"),
        (signed(), b'{"cost":0.2,"text":"caf\xc3\xa9"}', "no signature matches"),
        (signed(b"no JSON"), b"no JSON", "the body is no JSON"),
    ],
)
def test_reasons(headers: dict[str, str], body: bytes, says: str) -> None:
    """Each way of going wrong is named, as far as trying can find it out."""
    problem = diagnose(headers, body, [OURS], others={"the other one": OTHER}, now=NOW)
    assert problem
    assert says in problem
    assert OURS not in problem
    assert OTHER not in problem


def test_without_secrets() -> None:
    """Without any secret that is what is wrong."""
    assert "there is no secret to verify with" == diagnose(signed(), BODY, [], now=NOW)


@pytest.mark.parametrize("malformed", ["whsec_", "whsec_no base64", OURS.removeprefix("whsec_"), OURS[:-16]])
def test_a_malformed_secret(malformed: str) -> None:
    """A secret that is none verifies nothing, whatever the body is; it is named unless another one verifies."""
    problem = diagnose(signed(), BODY, [malformed, OTHER], now=NOW)
    assert problem
    assert problem.startswith("a secret to verify with is malformed: ")
    assert None is diagnose(signed(), BODY, [malformed, OURS], now=NOW)
    unsigned = diagnose(signed(), BODY, [OTHER], others={"a bad one": malformed}, now=NOW)
    assert unsigned
    assert unsigned.startswith("no signature matches")
