"""Standard Webhooks 1.0 signatures: signing, and verification for customers.

Spec: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md. No I/O: the
time is an argument (`verify` reads the clock only if the caller gives none).
"""

import base64
import binascii
import functools
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dispatcher import ed25519
from dispatcher.codec import decode_json
from dispatcher.errors import InvalidInput, SignatureInvalid

SECRET_PREFIX = "whsec_"  # noqa: S105  a prefix, not a secret
MIN_KEY_BYTES = 24
MAX_KEY_BYTES = 64
TOLERANCE_SECONDS = 300
MAX_LOADED = 4096
"""Secrets kept ready to sign: to begin with one takes longer than to sign a callback. Each takes some 1 KB."""
MAX_TRIED = 10
"""How many signatures of a request are looked at, the first ones: a `v1a` one takes 100 us, and we send six at most."""


def new_secret(random_bytes: bytes) -> str:
    """Formats 24 to 64 random bytes as a secret (spec, "Signature scheme")."""
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode()


@functools.lru_cache(maxsize=MAX_LOADED)
def key_of(secret: str) -> bytes:
    """The HMAC key in a secret, which is kept. Raises InvalidInput, whose text never contains the secret."""
    return _decoded(secret)


def _decoded(secret: str) -> bytes:
    """As key_of, and keeps nothing: somebody else's secret may be verified with."""
    encoded = secret.removeprefix(SECRET_PREFIX)
    if encoded == secret:
        raise InvalidInput(f"a secret starts with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"after {SECRET_PREFIX} a secret is base64") from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise InvalidInput(f"a secret holds {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes; this one {len(key)}")
    return key


def check_secret(secret: str) -> None:
    """Raises InvalidInput for what `verify` cannot verify with: neither a secret nor a public key."""
    _verifier(secret)


def _verifier(secret: str) -> tuple[bytes, str]:
    """The HMAC key or the public key, and the version of its signatures."""
    if secret.startswith(ed25519.PUBLIC_PREFIX):
        return ed25519.public_bytes(secret), "v1a"
    return _decoded(secret), "v1"


def signed_content(event_id: str, timestamp: int, body: bytes) -> bytes:
    """What is signed: `id.timestamp.body`. `signature` has it in line, for callbacks/s."""
    return b"%b.%d.%b" % (event_id.encode(errors="surrogatepass"), timestamp, body)


def signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """One signature: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`."""
    signed = b"%b.%d.%b" % (event_id.encode(errors="surrogatepass"), timestamp, body)
    return "v1," + base64.b64encode(hmac_sha256(key, signed)).decode()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) with one of the keys that callbacks are signed with: it is kept, begun, for the next message."""
    begun = _begun(key).copy()
    begun.update(message)
    return begun.digest()


@functools.lru_cache(maxsize=MAX_LOADED)
def _begun(key: bytes) -> hmac.HMAC:
    """HMAC-SHA256 with a key, and nothing signed yet: to be copied."""
    return hmac.new(key, digestmod="sha256")


def webhook_headers(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of the spec; one signature for each live key."""
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, event_id, timestamp, body) for key in keys),
    }


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str,
    *,
    tolerance_seconds: int = TOLERANCE_SECONDS,
    now: float | None = None,
) -> Any:
    """Verifies a callback and returns its decoded JSON.

    `secret` is a `whsec_` secret, which verifies a `v1` signature, or a `whpk_` public key, which verifies a `v1a` one.
    `headers` is any mapping of the request's headers; `body` must be the received bytes, not JSON
    that was parsed and serialized again. Signatures are compared in constant time. Raises
    SignatureInvalid, whose text says which check failed: a header is missing, the clock is off, or
    the secret or the body differs from what was signed. Raises InvalidInput if `secret` is malformed,
    or if the body verifies but is not JSON.
    """
    raw = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    key, version = _verifier(secret)
    event_id, stamp, given = (
        _header(headers, f"webhook-{name}") for name in ("id", "timestamp", "signature")
    )
    if "." in event_id:  # or its end could pass as the time or the body
        raise SignatureInvalid("webhook-id holds a full stop; it is none of ours")
    timestamp = _fresh(stamp, tolerance_seconds, datetime.now(UTC).timestamp() if now is None else now)
    first = given.split(maxsplit=MAX_TRIED)[:MAX_TRIED]
    candidates = [word for word in first if word.startswith(version + ",")]
    if not candidates:
        raise SignatureInvalid(f"webhook-signature has no {version} signature")
    signed = signed_content(event_id, timestamp, raw)
    is_public = version == "v1a"
    if is_public:
        is_ours = any(ed25519.verifies(secret, one, signed) for one in candidates)
    else:
        is_ours = _hmac_matches(key, signed, candidates)
    if not is_ours:
        what = "public key" if is_public else "secret"
        raise SignatureInvalid(
            f"no signature matches: the {what} is another one, or the body is not the bytes that were sent"
        )
    return decode_json(raw)


def _hmac_matches(key: bytes, signed: bytes, candidates: Sequence[str]) -> bool:
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    return any(hmac.compare_digest(expected, one.encode(errors="surrogatepass")) for one in candidates)


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = next((v for k, v in headers.items() if k.lower() == name), None)
    if not value:
        raise SignatureInvalid(f"header {name} is missing")
    return value


def _fresh(stamp: str, tolerance_seconds: int, now: float) -> int:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise SignatureInvalid("webhook-timestamp is not a number of seconds since 1970")
    age = now - int(stamp)
    if abs(age) > tolerance_seconds:
        direction = "old" if age > 0 else "in the future"
        raise SignatureInvalid(
            f"webhook-timestamp is {abs(age):.0f} s {direction}; {tolerance_seconds} s are allowed: "
            "the callback was replayed, or a clock is off"
        )
    return int(stamp)
