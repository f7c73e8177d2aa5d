"""Signatures of Standard Webhooks 1.0, held against its own Python library."""

import base64
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher.errors import InvalidInput, SignatureInvalid
from dispatcher.signing import check_secret, key_of, new_secret, signature, verify, webhook_headers

KEY, OTHER_KEY = b"k" * 24, b"o" * 64
SECRET, OTHER_SECRET = new_secret(KEY), new_secret(OTHER_KEY)
NOW = 1_781_010_297
BODY = '{"eventId":"event-1","src":"Zürich"}'.encode()

keys = st.binary(min_size=24, max_size=64)
event_ids = st.text("abcXYZ019_-", min_size=1, max_size=128)
seconds = st.integers(0, 253_402_300_799)
bodies = st.dictionaries(st.text(), st.integers() | st.text()).map(lambda value: json.dumps(value).encode())


def signed(**changes: str | None) -> dict[str, str]:
    """The three headers of BODY, signed at NOW with KEY, with some of them changed or (None) left out."""
    headers = webhook_headers([KEY], "event-1", NOW, BODY)
    found = {name: changes.get(name.removeprefix("webhook-"), value) for name, value in headers.items()}
    return {name: value for name, value in found.items() if value is not None}


def refusal(
    headers: Mapping[str, str], body: bytes | str = BODY, secret: str = SECRET, now: float = NOW
) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        verify(headers, body, secret, now=now)
    assert secret.removeprefix("whsec_") not in str(caught.value)
    return str(caught.value)


@given(key=keys, event_id=event_ids, at=seconds, body=bodies)
def test_we_sign_as_the_library_does(key: bytes, event_id: str, at: int, body: bytes) -> None:
    """For every secret, id, time and body our signature is the library's."""
    theirs = Webhook(new_secret(key)).sign(event_id, datetime.fromtimestamp(at, UTC), body.decode())
    assert theirs == signature(key, event_id, at, body)


@given(key=keys, event_id=event_ids, body=bodies)
def test_the_library_verifies_what_we_sign(key: bytes, event_id: str, body: bytes) -> None:
    """A customer who uses the library gets the body we signed."""
    headers = webhook_headers([key], event_id, int(datetime.now(UTC).timestamp()), body)
    assert json.loads(body) == Webhook(new_secret(key)).verify(body, headers)


def test_the_library_refuses_another_body() -> None:
    """The library is no verifier that says yes to everything."""
    headers = webhook_headers([KEY], "event-1", int(datetime.now(UTC).timestamp()), BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY + b" ", headers)


@given(key=keys, event_id=event_ids, at=seconds, body=bodies)
def test_we_verify_what_the_library_signs(key: bytes, event_id: str, at: int, body: bytes) -> None:
    """`verify` takes what others sign by the spec."""
    webhook = Webhook(new_secret(key))
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": webhook.sign(event_id, datetime.fromtimestamp(at, UTC), body.decode()),
    }
    assert json.loads(body) == verify(headers, body, new_secret(key), now=at)


def test_headers_are_those_of_the_spec() -> None:
    """A callback carries its id, the attempt's time and one signature for each live secret."""
    expected = {
        "webhook-id": "event-1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": " ".join(signature(key, "event-1", NOW, BODY) for key in (KEY, OTHER_KEY)),
    }
    assert expected == webhook_headers([KEY, OTHER_KEY], "event-1", NOW, BODY)


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
def test_each_of_two_secrets_verifies(secret: str) -> None:
    """While a secret is rotated, customers verify with the old or the new one."""
    headers = webhook_headers([KEY, OTHER_KEY], "event-1", NOW, BODY)
    assert "event-1" == verify(headers, BODY, secret, now=NOW)["eventId"]


@pytest.mark.parametrize("body", [BODY, BODY.decode()])
def test_a_body_may_be_bytes_or_text(body: bytes | str) -> None:
    """`verify` takes the body as bytes or as the text they decode to."""
    assert {"eventId": "event-1", "src": "Zürich"} == verify(signed(), body, SECRET, now=NOW)


def test_decimals_stay_exact() -> None:
    """A verified body's amounts are decimals, not rounded floats."""
    body = b'{"cost":0.05}'
    verified = verify(webhook_headers([KEY], "e", NOW, body), body, SECRET, now=NOW)
    assert {"cost": Decimal("0.05")} == verified
    assert isinstance(verified["cost"], Decimal)


@pytest.mark.parametrize("style", [str.upper, str.title, str.lower])
def test_header_names_have_no_case(style: Callable[[str], str]) -> None:
    """Frameworks write header names in their own case; all are understood."""
    headers = {style(name): value for name, value in signed().items()}
    assert "event-1" == verify(headers, BODY, SECRET, now=NOW)["eventId"]


@pytest.mark.parametrize("more", ["v1,AAAA {}", "v1a,AAAA {}", "{} v2,AAAA", "v1, v1 , {}", "  {}  "])
def test_one_good_signature_is_enough(more: str) -> None:
    """Signatures of other secrets and other versions beside ours do no harm."""
    headers = signed(signature=more.format(signature(KEY, "event-1", NOW, BODY)))
    assert "event-1" == verify(headers, BODY, SECRET, now=NOW)["eventId"]


def test_the_first_ten_signatures_are_looked_at() -> None:
    """Of either version: a request with very many costs no more than one with ten."""
    good = signature(KEY, "event-1", NOW, BODY)
    others = [*(["v1,AAAA", "v2,AAAA"] * 4), "v1a,AAAA"]
    tenth, eleventh = " ".join([*others, good]), " ".join([*others, "v1,AAAA", good])
    assert verify(signed(signature=tenth), BODY, SECRET, now=NOW)
    with pytest.raises(SignatureInvalid, match="no signature matches"):
        verify(signed(signature=eleventh), BODY, SECRET, now=NOW)


def test_a_secret_that_is_verified_with_is_not_kept() -> None:
    """People paste theirs where a signature is checked; those that sign are kept."""
    key_of.cache_clear()
    assert verify(signed(), BODY, SECRET, now=NOW)
    check_secret(SECRET)
    assert 0 == key_of.cache_info().currsize


@pytest.mark.parametrize("age", [0, 1, -1, 300, -300])
def test_five_minutes_are_tolerated(age: int) -> None:
    """A clock may be five minutes off, in either direction."""
    assert "event-1" == verify(signed(), BODY, SECRET, now=NOW + age)["eventId"]


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (300.5, "s old; 300 s are allowed"),
        (301, "301 s old; 300 s are allowed"),
        (10**6, "1000000 s old"),
        (-300.5, "s in the future; 300 s are allowed"),
        (-301, "301 s in the future; 300 s are allowed"),
    ],
)
def test_older_and_newer_ones_are_refused(age: float, text: str) -> None:
    """Beyond five minutes a callback is refused as replayed, and the text says how far it is off."""
    assert text in refusal(signed(), now=NOW + age)


@pytest.mark.parametrize(("tolerance", "age"), [(10, 10), (0, 0), (86_400, 86_400)])
def test_the_tolerance_can_be_set(tolerance: int, age: int) -> None:
    """The tolerance is the caller's: met at its very end, missed a second later."""
    assert verify(signed(), BODY, SECRET, tolerance_seconds=tolerance, now=NOW + age)
    with pytest.raises(SignatureInvalid, match=f"{tolerance} s are allowed"):
        verify(signed(), BODY, SECRET, tolerance_seconds=tolerance, now=NOW + age + 1)


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
def test_a_missing_header_is_named(name: str, value: str | None) -> None:
    """A header that is missing or empty is named."""
    assert f"header webhook-{name} is missing" == refusal(signed(**{name: value}))


@pytest.mark.parametrize("stamp", ["now", "-1", "1e9", f"{NOW}.0", f" {NOW}", "٣", "9" * 13, "0x10"])
def test_a_timestamp_is_a_number_of_seconds(stamp: str) -> None:
    """Any other timestamp is refused before anything is computed from it."""
    assert "webhook-timestamp is not a number of seconds since 1970" == refusal(signed(timestamp=stamp))


@pytest.mark.parametrize("given_signature", ["v1a,AAAA", "v2,AAAA", "AAAA", " ", "V1,AAAA"])
def test_a_v1_signature_is_needed(given_signature: str) -> None:
    """Signatures of other versions alone are not enough."""
    assert "webhook-signature has no v1 signature" == refusal(signed(signature=given_signature))


NO_MATCH = "no signature matches: the secret is another one, or the body is not the bytes that were sent"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "event-2"},
        {"timestamp": str(NOW + 1)},
        {"signature": "v1,"},
        {"signature": "v1,AAAA"},
        {"signature": signature(KEY, "event-1", NOW, BODY)[:-1]},
        {"signature": signature(OTHER_KEY, "event-1", NOW, BODY)},
    ],
)
def test_every_header_is_signed(changes: dict[str, str]) -> None:
    """Another id, time or signature than the signed one does not verify."""
    assert NO_MATCH == refusal(signed(**changes))


def test_another_secret_does_not_verify() -> None:
    """A callback signed with one customer's secret is nothing to another."""
    assert NO_MATCH == refusal(signed(), secret=OTHER_SECRET)


@given(st.binary())
def test_another_body_does_not_verify(body: bytes) -> None:
    """Whatever bytes stand in for the body, they do not verify."""
    assert NO_MATCH == refusal(signed(), body)


def test_a_body_written_again_does_not_verify() -> None:
    """The same JSON with other blanks is not the body that was signed."""
    assert NO_MATCH == refusal(signed(), json.dumps(json.loads(BODY)))


strangers_text = st.text(st.characters()).filter(lambda text: text not in ("event-1", str(NOW)))


@given(
    st.dictionaries(
        st.sampled_from(["id", "timestamp", "signature"]),
        st.none() | strangers_text | strangers_text.map("v1,{}".format),
        min_size=1,
    )
)
def test_any_other_header_is_refused(changes: dict[str, str | None]) -> None:
    """Headers come from strangers: whatever is in them, `verify` raises SignatureInvalid and nothing else."""
    assert refusal(signed(**changes))


@pytest.mark.parametrize("changes", [{"id": "\udcff"}, {"signature": "v1,\udcff"}, {"timestamp": "\udcff"}])
def test_headers_that_are_no_utf8_are_refused(changes: dict[str, str]) -> None:
    """Servers hand on a header's stray bytes as lone surrogates; such a callback does not verify."""
    assert refusal(signed(**changes))


def test_text_that_is_no_utf8_is_refused() -> None:
    """A body given as text that no UTF-8 can hold does not verify."""
    assert refusal(signed(), BODY.decode() + "\udcff")


def test_a_stray_byte_stands_for_no_other_character() -> None:
    """A surrogate in id or body is not taken for the question mark that was signed."""
    headers = webhook_headers([KEY], "id?", NOW, b'"?"')
    assert "?" == verify(headers, '"?"', SECRET, now=NOW)
    assert refusal({**headers, "webhook-id": "id\udcff"}, '"?"')
    assert refusal(headers, '"\udcff"')


@given(keys)
def test_a_secret_holds_its_key(key: bytes) -> None:
    """The key comes out of a secret as it went in."""
    assert key == key_of(new_secret(key))


def encoded(size: int) -> str:
    return base64.b64encode(b"s" * size).decode()


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("", "a secret starts with whsec_"),
        (encoded(24), "a secret starts with whsec_"),
        ("WHSEC_" + encoded(24), "a secret starts with whsec_"),
        (" whsec_" + encoded(24), "a secret starts with whsec_"),
        ("whsec_", "a secret holds 24 to 64 bytes; this one 0"),
        ("whsec_" + encoded(23), "a secret holds 24 to 64 bytes; this one 23"),
        ("whsec_" + encoded(65), "a secret holds 24 to 64 bytes; this one 65"),
        ("whsec_" + encoded(25).rstrip("="), "after whsec_ a secret is base64"),
        ("whsec_" + encoded(24) + "\n", "after whsec_ a secret is base64"),
        ("whsec_" + "-_" * 16, "after whsec_ a secret is base64"),
        ("whsec_" + "ü" * 32, "after whsec_ a secret is base64"),
        ("whsec_" + "\udcff" * 32, "after whsec_ a secret is base64"),
    ],
)
def test_a_malformed_secret_is_refused(secret: str, text: str) -> None:
    """A secret in another form is an InvalidInput that says what is wrong and never holds the secret."""
    with pytest.raises(InvalidInput) as caught:
        key_of(secret)
    assert text == str(caught.value)
    with pytest.raises(InvalidInput):
        verify(signed(), BODY, secret, now=NOW)


@given(st.text(st.characters()))
def test_any_secret_is_read_or_refused(text: str) -> None:
    """Reading a secret gives a key of 24 to 64 bytes or an InvalidInput."""
    with suppress(InvalidInput):
        assert 24 <= len(key_of("whsec_" + text)) <= 64
