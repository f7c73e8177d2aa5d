"""Generates secrets; encrypts a workspace's secrets and headers for Redis if SECRET_KEYS is set."""

import secrets
from collections.abc import Sequence

from dispatcher.errors import InvalidInput
from dispatcher.signing import new_secret

_PLAIN = b"plain:"


def generate_secret() -> str:
    """A new secret of 32 random bytes."""
    return new_secret(secrets.token_bytes(32))


class SecretBox:
    """Encrypts and decrypts with Fernet keys, newest first; without keys the data stays readable."""

    def __init__(self, fernet_keys: Sequence[str] = ()) -> None:
        self._fernet = None
        if not fernet_keys:
            return
        from cryptography.fernet import Fernet, MultiFernet  # a twentieth of a command's time

        try:
            self._fernet = MultiFernet([Fernet(key) for key in fernet_keys])
        except ValueError:
            raise InvalidInput(
                "a key in DISPATCHER_SECRET_KEYS is no Fernet key (32 bytes in URL-safe base64, 44 characters)"
            ) from None

    def seal(self, raw: bytes) -> bytes:
        """Encrypts data for Redis; without keys only marks it as plain."""
        return self._fernet.encrypt(raw) if self._fernet else _PLAIN + raw

    def open(self, sealed: bytes) -> bytes:
        """Decrypts what `seal` returned. Raises InvalidInput if no key fits."""
        if sealed.startswith(_PLAIN):
            return sealed.removeprefix(_PLAIN)
        if self._fernet is None:
            raise InvalidInput("the workspace's secrets are encrypted, but DISPATCHER_SECRET_KEYS is not set")
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise InvalidInput("no key in DISPATCHER_SECRET_KEYS opens the workspace's secrets") from None
