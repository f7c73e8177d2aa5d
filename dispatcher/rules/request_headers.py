"""The headers of a callback's request: those of all requests, the receiver's own, the dialect's, Standard Webhooks'."""

from dataclasses import dataclass

from dispatcher import ed25519
from dispatcher.rules.authorization import ClientCredentials, Known, goes_to_its_own
from dispatcher.rules.callback import Claimed
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.dialects import Signing, dialect_of
from dispatcher.rules.endpoint_name import event_id_of
from dispatcher.rules.subscription import Receiver
from dispatcher.rules.workspace_headers import TRACE_HEADERS
from dispatcher.signing import signed_content, webhook_headers

COMMON = {"Content-Type": "application/json", "Accept": "*/*"}
"""Of all callbacks of all workspaces. `workspace_headers.RESERVED` keeps workspaces from setting the same."""


def request_headers(
    callback: Claimed, body: bytes, receiver: Receiver, now_ms: int, user_agent: str
) -> dict[str, str]:
    """The headers of one attempt, signed with the secrets that are live at `now_ms`.

    Raises InvalidInput for a receiver that has no such secret.
    """
    timestamp, event_id = now_ms // 1000, callback.event_id
    if "." in event_id:  # of another subscription than the default one
        event_id = event_id_of(event_id)
    secrets = receiver.live_secrets(now_ms)
    signing = Signing(event_id, body, [s.text for s in secrets], timestamp, callback.attempt)
    headers = {
        **COMMON,
        "User-Agent": user_agent,
        **receiver.headers,
        **dialect_of(receiver.dialect).headers(signing),
        **webhook_headers([s.key for s in secrets], event_id, timestamp, body),
    }
    if callback.trace and not {name.lower() for name in receiver.headers}.intersection(TRACE_HEADERS):
        headers |= zip(TRACE_HEADERS, callback.trace, strict=False)
    if receiver.signing_keys or receiver.auth:
        _prove(headers, callback, receiver, signed_content(event_id, timestamp, body), now_ms)
    return headers


def _prove(
    headers: dict[str, str], callback: Claimed, receiver: Receiver, signed: bytes, now_ms: int
) -> None:
    """Adds what only some subscriptions have: `v1a` signatures, and Authorization where the URL is its own."""
    if keys := receiver.live_keys(now_ms):
        signatures = [headers["webhook-signature"], *(ed25519.sign(key.text, signed) for key in keys)]
        headers["webhook-signature"] = " ".join(signatures)
    if isinstance(receiver.auth, Known) and _is_its_own(callback, receiver):
        headers["Authorization"] = receiver.auth.value


@dataclass(frozen=True, slots=True)
class Proof:
    """What tells a receiver who we are beside headers that are known."""

    credentials: ClientCredentials | None = None
    """With these a token is fetched before the callback is sent."""
    certificate: ClientCertificate | None = None
    """This is shown in the TLS handshake."""


NO_PROOF = Proof()


def proof_for(callback: Claimed, receiver: Receiver) -> Proof:
    """What a callback needs of it: nothing if it does not go to the receiver's own URL."""
    certificate, auth = receiver.client_certificate, receiver.auth
    credentials = auth if isinstance(auth, ClientCredentials) else None
    if (certificate or credentials) and _is_its_own(callback, receiver):
        return Proof(credentials, certificate)
    return NO_PROOF


def _is_its_own(callback: Claimed, receiver: Receiver) -> bool:
    is_default = "." not in callback.event_id
    return goes_to_its_own(callback.url, receiver.callback_url, is_default=is_default)
