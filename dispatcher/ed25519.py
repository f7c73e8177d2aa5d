"""Standard Webhooks' asymmetric signatures, `v1a`: Ed25519 keys, `whsk_` the secret and `whpk_` the public one.

Spec: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, "Signature scheme". No I/O. A key of
this file's making holds the pair, 64 bytes, so that showing its public half needs no cryptography.
"""

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import Any

from dispatcher.errors import InvalidInput

SECRET_PREFIX, PUBLIC_PREFIX = "whsk_", "whpk_"
SEED_BYTES = PUBLIC_BYTES = 32
MAX_LOADED = 1024
"""Keys kept ready to sign: making one from its bytes takes as long as a signature, some 50 us."""


def new_key(seed: bytes) -> str:
    """The `whsk_` key of 32 random bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return SECRET_PREFIX + base64.b64encode(seed + public).decode()


def public_of(key: str) -> str:
    """The `whpk_` key of a `whsk_` key."""
    return PUBLIC_PREFIX + base64.b64encode(_pair(key)[SEED_BYTES:]).decode()


def sign(key: str, signed: bytes) -> str:
    """One signature: `v1a,` and the base64 Ed25519 signature of `id.timestamp.body`."""
    return "v1a," + base64.b64encode(_loaded(key).sign(signed)).decode()


def verifies(public: str, signature: str, signed: bytes) -> bool:
    """Whether `signature`, with its `v1a,`, is of the `whpk_` key. Raises InvalidInput for a malformed key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    verifier = Ed25519PublicKey.from_public_bytes(public_bytes(public))
    try:
        raw = base64.b64decode(signature.removeprefix("v1a,"), validate=True)
        verifier.verify(raw, signed)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def public_bytes(public: str) -> bytes:
    """The 32 bytes in a `whpk_` key. Raises InvalidInput."""
    encoded = public.removeprefix(PUBLIC_PREFIX)
    if encoded == public:
        raise InvalidInput(f"a public key starts with {PUBLIC_PREFIX}")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"after {PUBLIC_PREFIX} a public key is base64") from None
    if len(raw) != PUBLIC_BYTES:
        raise InvalidInput(f"a public key holds {PUBLIC_BYTES} bytes; this one {len(raw)}")
    return raw


def as_jwk(public: str) -> dict[str, str]:
    """A public key as a JSON Web Key (RFC 8037)."""
    x = _base64url(public_bytes(public))
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": thumbprint(public), "use": "sig", "alg": "EdDSA"}


def thumbprint(public: str) -> str:
    """A public key's id: the thumbprint of its JWK (RFC 7638; RFC 8037 §2 and appendix A.3)."""
    members = b'{"crv":"Ed25519","kty":"OKP","x":"%b"}' % _base64url(public_bytes(public)).encode()
    return _base64url(hashlib.sha256(members).digest())


def _pair(key: str) -> bytes:
    return base64.b64decode(key.removeprefix(SECRET_PREFIX))


@lru_cache(MAX_LOADED)
def _loaded(key: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_pair(key)[:SEED_BYTES])


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
