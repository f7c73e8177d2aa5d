"""Checks an ID token (OpenID Connect Core 1.0 §3.1.3.7): who signed it, for whom, for which log-in, until when."""

from collections.abc import Mapping
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

from dispatcher.errors import InvalidInput

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Signatures by a private key alone: `none` proves nothing, and a client's secret (HS256) is not only the provider's."""
LEEWAY_SECONDS = 60
"""How far the clocks of the provider and of this machine may differ."""


class UnknownKey(InvalidInput):
    """The token names a key that is not among those given: the provider may have a new one."""


def keys_in(document: Mapping[str, Any]) -> KeySet:
    """The keys of a JWKS document that may sign tokens; those that cannot be read are left out."""
    listed = document.get("keys")
    found = [key for one in listed if (key := _key(one))] if isinstance(listed, list) else []
    return KeySet(found)


def _key(given: Any) -> Key | None:
    if not isinstance(given, dict) or given.get("use", "sig") != "sig":
        return None
    try:
        found = import_key(given)
    except (JoseError, ValueError, TypeError, LookupError):
        return None
    return found if isinstance(found, RSAKey | ECKey | OKPKey) else None


def claims_of(
    text: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now: int
) -> dict[str, Any]:
    """The claims of an ID token that holds for this client and this log-in. Raises InvalidInput, UnknownKey."""
    options = {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": client_id},
        "nonce": {"essential": True, "value": nonce},
    }
    try:
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        token = jwt.decode(text, keys, algorithms=ALGORITHMS, registry=registry)
        claims = CodeIDToken(token.claims, token.header, options, {"nonce": nonce, "client_id": client_id})
        claims.validate(now=now, leeway=LEEWAY_SECONDS)
    except InvalidKeyIdError:
        raise UnknownKey(
            "the identity provider's token is signed with a key that it does not publish"
        ) from None
    except JoseError as error:
        raise InvalidInput(f"the identity provider's token is not valid: {_why(error)}") from None
    except (ValueError, TypeError, LookupError):
        raise InvalidInput("the identity provider's token cannot be read") from None
    return dict(token.claims)


def _why(error: JoseError) -> str:
    """The claim or the kind of error: never what the token says."""
    return f"{error.error}{f' ({claim})' if (claim := getattr(error, 'claim', '')) else ''}"
