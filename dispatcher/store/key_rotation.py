"""Makes secrets and Ed25519 keys, and rotates them: the previous ones keep signing for a grace time."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from dispatcher import ed25519
from dispatcher.errors import InvalidInput
from dispatcher.model import LONGEST_GRACE_SECONDS, iso
from dispatcher.rules.subscription import Receiver, Secret, SigningKey
from dispatcher.signing import key_of
from dispatcher.store.sealing import generate_secret
from dispatcher.store.workspace_record import WorkspaceRecord

K = TypeVar("K", Secret, SigningKey)

MAX_LIVE_SECRETS = 3
"""Each makes the signature header longer, and old secrets should be retired."""
OR_AT_ONCE = ", or say a grace time of 0, which ends them all now"
"""For who can say one."""


def new_secret(text: str | None, now_ms: int) -> Secret:
    """The secret in `text`, or a new one if that is empty. Raises InvalidInput for a malformed one."""
    new = Secret(text or generate_secret(), now_ms)
    key_of(new.text)
    return new


def new_signing_key(now_ms: int) -> SigningKey:
    """A new Ed25519 key pair."""
    return SigningKey(ed25519.new_key(secrets.token_bytes(ed25519.SEED_BYTES)), now_ms)


def rotated_fields(
    record: WorkspaceRecord, known: Receiver, new: Secret, now_ms: int, grace_ms: int
) -> dict[str, Any]:
    """A receiver's fields with a new secret and, if it has one, a new Ed25519 key. Raises InvalidInput."""
    fields = {"secrets": record.seal(rotated(known.secrets, new, now_ms, grace_ms))}
    if known.signing_keys:
        keys = rotated(known.signing_keys, new_signing_key(now_ms), now_ms, grace_ms)
        fields["signing_keys"] = record.seal(keys)
    return fields


def rotated(known: Sequence[K], new: K, now_ms: int, grace_ms: int) -> list[K]:
    """The secrets after a new one came: the others end after `grace_ms`.

    Raises InvalidInput if too many would be live, or `grace_ms` is below 0 or above LONGEST_GRACE_SECONDS.
    """
    if not 0 <= grace_ms <= LONGEST_GRACE_SECONDS * 1000:
        raise InvalidInput(f"a grace period is 0 to {LONGEST_GRACE_SECONDS} seconds")
    grace_ends = now_ms + grace_ms
    ends = [min(grace_ends, s.expires_ms or grace_ends) for s in known]
    live: list[K] = [replace(s, expires_ms=e) for s, e in zip(known, ends, strict=True) if e > now_ms]
    if len(live) >= MAX_LIVE_SECRETS:
        raise InvalidInput(
            f"{len(live)} secrets are live, the oldest until {iso(min(ends))}; wait for that{OR_AT_ONCE}"
        )
    live.append(new)
    return live
