"""A client certificate, by which a subscription's receiver knows us in the TLS handshake (mTLS). No I/O."""

from typing import Any

import msgspec

WARN_DAYS = 14
"""So long before its end `check`, metrics and alerts warn of a certificate."""


class ClientCertificate(msgspec.Struct, frozen=True):
    """A certificate with its private key, as rules/certificate_check.py lets it pass."""

    chain: str
    """The certificate, then the intermediates that are sent with it: PEM."""
    key: str
    """Its private key: PEM, not encrypted."""
    fingerprint: str
    """SHA-256 of the chain, in hex: connections with one are not used with another."""
    subject: str
    """Whom it names, by RFC 4514."""
    ends_ms: int
    """When it ends, or one of its intermediates before that, in ms since 1970."""

    def __repr__(self) -> str:
        return f"ClientCertificate({self.fingerprint[:16]})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("fingerprint", self.fingerprint[:16])]
