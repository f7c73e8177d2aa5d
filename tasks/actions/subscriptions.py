"""A subscription as commands print it, and as the trail has it."""

from collections import Counter
from typing import Any

from dispatcher import ed25519
from dispatcher.errors import InvalidInput
from dispatcher.model import iso
from dispatcher.rules.addresses import parse_callback_url, without_query
from dispatcher.rules.authorization import ClientCredentials, kind_of
from dispatcher.rules.retry_schedule import in_words
from dispatcher.rules.subscription import DEFAULT, Receiver
from dispatcher.rules.workspace import Workspace
from dispatcher.store.audit import is_changed, shown_url
from dispatcher.store.subscriptions import found
from tasks import wiring


def names(workspace: Workspace) -> list[str]:
    """The names of a workspace's subscriptions, the default one first."""
    return [DEFAULT, *workspace.subscriptions]


async def waiting(store: wiring.Store, workspace: str, name: str) -> int:
    """How many callbacks wait for a subscription."""
    return sum((await store.workspaces.waiting(workspace, "" if name == DEFAULT else name)).values())


async def waiting_of_each(store: wiring.Store, workspace: str) -> Counter[str]:
    """How many callbacks wait for each subscription, by one scan of the endpoints."""
    counts: Counter[str] = Counter()
    for endpoint in await store.workspaces.endpoints(workspace):
        counts[endpoint.subscription or DEFAULT] += endpoint.waiting
    return counts


async def note(store: wiring.Store, what: str, changed: Workspace, name: str) -> None:
    """Adds a change of a subscription to the trail."""
    if not is_changed(changed):
        return
    before = changed.before
    was = _facts(before, name) if before and (name == DEFAULT or name in before.subscriptions) else {}
    now = _facts(changed, name)
    facts = [{key: value for key, value in of.items() if was.get(key) != now[key]} for of in (was, now)]
    if (
        was
        and was["auth"] == now["auth"]
        and before
        and found(before, name).auth != found(changed, name).auth
    ):
        facts[1]["authChanged"] = True  # to another user or secret
    await store.audit.add(f"subscription.{what}", changed.id, facts[0], {"subscription": name} | facts[1])


def document(
    workspace: Workspace, name: str, waiting: int, *, reveal: bool = False, allow_http: bool = True
) -> dict[str, Any]:
    """What `subscription show --json` prints; with `reveal` the URL's query and the headers' values too."""
    one = found(workspace, name)
    return {
        "subscription": name,
        "workspace": workspace.id,
        "state": one.state,
        "reason": one.disabled and one.disabled.reason,
        "disabledAt": one.disabled and iso(one.disabled.at_ms),
        "callbackUrl": (one.callback_url if reveal else without_query(one.callback_url)) or None,
        "events": list(one.events),
        "channels": list(one.channels),
        "withoutFields": list(one.without_fields),
        "dialect": one.dialect,
        "headers": {header: value if reveal else "…" for header, value in one.headers.items()},
        "maxConcurrency": one.max_concurrency,
        "ratePerSecond": one.rate_per_second,
        "ordering": one.ordering,
        "retrySchedule": in_words(one.retry_schedule),
        "createdAt": iso(one.created_ms),
        "secrets": [
            {"createdAt": iso(s.created_ms), "expiresAt": None if s.expires_ms is None else iso(s.expires_ms)}
            for s in one.secrets
        ],
        **_proof(one),
        "waiting": waiting,
        "problem": one.problem or _unusable(one, allow_http),
    }


def _unusable(one: Receiver, allow_http: bool) -> str | None:
    """Why nothing goes to its URL, by the settings of this process; None if there is no such reason."""
    try:
        if one.callback_url:
            parse_callback_url(one.callback_url, allow_http=allow_http)
    except InvalidInput as error:
        return str(error)
    return None


def _facts(workspace: Workspace, name: str) -> dict[str, Any]:
    """A subscription as the trail has it: no secrets, no query of its URL, only the names of headers."""
    one = found(workspace, name)
    return {
        "callbackUrl": shown_url(one.callback_url),
        "dialect": one.dialect,
        "events": list(one.events),
        "channels": list(one.channels),
        "withoutFields": list(one.without_fields),
        "maxConcurrency": one.max_concurrency,
        "ratePerSecond": one.rate_per_second,
        "ordering": one.ordering,
        "retrySchedule": in_words(one.retry_schedule),
        "headers": sorted(one.headers),
        "state": one.state,
        "reason": one.disabled and one.disabled.reason,
        "secrets": len(one.secrets),
        **_proof_facts(one),
    }


def _proof(one: Receiver) -> dict[str, Any]:
    """What `subscription show` tells: public keys, and of the Authorization header its kind and where tokens come from."""
    keys = [
        {
            "publicKey": key.public,
            "kid": ed25519.thumbprint(key.public),
            "createdAt": iso(key.created_ms),
            "expiresAt": None if key.expires_ms is None else iso(key.expires_ms),
        }
        for key in one.signing_keys
    ]
    shown: dict[str, Any] = {"signature": one.signature, "publicKeys": keys, "auth": kind_of(one.auth)}
    if isinstance(one.auth, ClientCredentials):
        shown |= {"tokenUrl": without_query(one.auth.token_url)}
        shown |= {"scope": one.auth.scope, "audience": one.auth.audience}
    certificate = one.client_certificate
    return shown | {
        "clientCertificate": certificate
        and {
            "subject": certificate.subject,
            "fingerprint": certificate.fingerprint,
            "expiresAt": iso(certificate.ends_ms),
        }
    }


def _proof_facts(one: Receiver) -> dict[str, Any]:
    """What the audit trail tells."""
    kids = [ed25519.thumbprint(key.public) for key in one.signing_keys]
    certificate = one.client_certificate
    return {
        "signature": one.signature,
        "publicKeys": kids,
        "auth": kind_of(one.auth),
        "tokenUrl": shown_url(one.auth.token_url) if isinstance(one.auth, ClientCredentials) else None,
        "clientCertificate": certificate and certificate.fingerprint,
    }


def public_key(one: Receiver) -> str | None:
    """The newest public key, if there is one."""
    return one.signing_keys[-1].public if one.signing_keys else None
