"""How a subscription's receiver is told who we are, as an operator gives it: the fields that are set for it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from dispatcher.rules.authorization import Authorization, ClientCredentials, check_no_conflict
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.subscription import ED25519, HMAC, Receiver, check_signature
from dispatcher.store.format import WITH_CREDENTIALS, WITH_SUBSCRIPTIONS
from dispatcher.store.key_rotation import new_signing_key
from dispatcher.store.workspace_record import WorkspaceRecord


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is given; None: it stays as it is, "none": it is removed."""

    signature: str | None = None
    """One of SIGNATURES: ed25519 makes a key pair if there is none yet, hmac removes it."""
    auth: Authorization | Literal["none"] | None = None
    client_certificate: ClientCertificate | Literal["none"] | None = None

    @classmethod
    def taken_from(cls, terms: dict[str, Any]) -> "Credentials":
        """Takes them out of a subscription's terms."""
        return cls(**{one.name: terms.pop(one.name) for one in fields(cls) if one.name in terms})

    def __bool__(self) -> bool:
        return (self.signature, self.auth, self.client_certificate) != (None, None, None)

    @property
    def format(self) -> int:
        """The format of data with these (store/format.py)."""
        is_later = isinstance(self.auth, ClientCredentials) or isinstance(
            self.client_certificate, ClientCertificate
        )
        return WITH_CREDENTIALS if is_later else WITH_SUBSCRIPTIONS

    def fields(
        self, record: WorkspaceRecord, before: Receiver | None, headers: Mapping[str, str], now_ms: int
    ) -> dict[str, Any]:
        """The fields that change; None removes one. `headers` are those the receiver will have. Raises InvalidInput."""
        found: dict[str, Any] = {}
        has_keys = bool(before and before.signing_keys)
        if self.signature is not None:
            check_signature(self.signature)
        if self.signature == HMAC and has_keys:
            found["signing_keys"] = None
        if self.signature == ED25519 and not has_keys:
            found["signing_keys"] = record.seal([new_signing_key(now_ms)])
        for name, given in (("auth", self.auth), ("client_certificate", self.client_certificate)):
            if given is not None:
                found[name] = None if isinstance(given, str) else record.seal(given)
        if not isinstance(self.auth, str):
            check_no_conflict(self.auth or (before.auth if before else None), headers)
        return found
