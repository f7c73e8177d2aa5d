"""Signatures others have published for Standard Webhooks are the ones we make, and we verify them."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from dispatcher.errors import InvalidInput, SignatureInvalid
from dispatcher.signing import key_of, signature, verify

OTHER = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
"""A signature of another key, which the specification's libraries use in their tests."""


@dataclass(frozen=True)
class Vector:
    """What was signed, and the signature that was published for it."""

    secret: str
    event_id: str
    timestamp: int
    body: bytes
    signature: str

    def headers(self, given: str | None = None) -> dict[str, str]:
        """Its three headers, with another signature if one is given."""
        return {
            "webhook-id": self.event_id,
            "webhook-timestamp": str(self.timestamp),
            "webhook-signature": given or self.signature,
        }


VECTORS = {
    # github.com/standard-webhooks/standard-webhooks, libraries/go/webhook_symmetric_test.go and
    # libraries/javascript/src/webhook.test.ts
    "go-and-javascript": Vector(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    # the same repository, libraries/rust/src/lib.rs
    "rust": Vector(
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
}

SHORT = Vector(
    "whsec_plJ3nmyCDGBKInavdOK15jsl",
    "msg_loFOjxBNrRLzqYUf",
    1731705121,
    b'{"event_type":"ping","data":{"success":true}}',
    "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
)
"""From docs.svix.com/receiving/verifying-payloads/how-manual: the same scheme, but a key of 18 bytes."""

each = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)


@each
def test_we_make_the_published_signature(vector: Vector) -> None:
    """Our signature is the published one."""
    key = key_of(vector.secret)
    assert vector.signature == signature(key, vector.event_id, vector.timestamp, vector.body)


@pytest.mark.parametrize("vector", [*VECTORS.values(), SHORT], ids=[*VECTORS, "short"])
def test_the_library_makes_the_published_signature(vector: Vector) -> None:
    """The published signatures are those of the specification's Python library too."""
    at = datetime.fromtimestamp(vector.timestamp, UTC)
    assert vector.signature == Webhook(vector.secret).sign(vector.event_id, at, vector.body.decode())


@each
@pytest.mark.parametrize("age", [-300, 0, 300])
def test_we_verify_the_published_signature(vector: Vector, age: int) -> None:
    """A published callback verifies at its time, and five minutes from it."""
    now = vector.timestamp + age
    assert json.loads(vector.body) == verify(vector.headers(), vector.body, vector.secret, now=now)


@each
@pytest.mark.parametrize(
    "given", ["{other} v2,{mac} {good} {other}", "{good} {other}", "v1a,{mac} {good}"], ids=range(3)
)
def test_one_good_signature_of_several_is_enough(vector: Vector, given: str) -> None:
    """A published callback verifies with other keys' and other versions' signatures beside its own."""
    several = given.format(other=OTHER, mac=OTHER.removeprefix("v1,"), good=vector.signature)
    assert json.loads(vector.body) == verify(
        vector.headers(several), vector.body, vector.secret, now=vector.timestamp
    )


@each
@pytest.mark.parametrize("given", [OTHER, "v1,", "v1,dawfeoifkpqwoekfpqoekf"])
def test_another_signature_is_refused(vector: Vector, given: str) -> None:
    """The signatures that the libraries' tests refuse are refused."""
    with pytest.raises(SignatureInvalid, match="no signature matches"):
        verify(vector.headers(given), vector.body, vector.secret, now=vector.timestamp)


@each
def test_a_partial_signature_is_refused(vector: Vector) -> None:
    """The beginning of a published signature is not enough."""
    with pytest.raises(SignatureInvalid, match="no signature matches"):
        verify(vector.headers(vector.signature[:8]), vector.body, vector.secret, now=vector.timestamp)


@each
def test_a_published_signature_under_another_version_is_refused(vector: Vector) -> None:
    """A published signature that is marked v2 is no v1 signature."""
    with pytest.raises(SignatureInvalid, match="no v1 signature"):
        verify(
            vector.headers(vector.signature.replace("v1,", "v2,")),
            vector.body,
            vector.secret,
            now=vector.timestamp,
        )


@each
@pytest.mark.parametrize("age", [-301, 301])
def test_a_published_callback_grows_old(vector: Vector, age: int) -> None:
    """A published callback does not verify more than five minutes from its time."""
    with pytest.raises(SignatureInvalid, match="300 s are allowed"):
        verify(vector.headers(), vector.body, vector.secret, now=vector.timestamp + age)


def test_a_published_secret_may_be_too_short() -> None:
    """A vendor's vector of a key under 24 bytes has our signature, but its secret is refused, as the specification asks."""
    key = base64.b64decode(SHORT.secret.removeprefix("whsec_"))
    assert SHORT.signature == signature(key, SHORT.event_id, SHORT.timestamp, SHORT.body)
    with pytest.raises(InvalidInput, match="this one 18"):
        verify(SHORT.headers(), SHORT.body, SHORT.secret, now=SHORT.timestamp)
