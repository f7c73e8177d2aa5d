"""How intake turns a status change into a workspace's callback."""

import json
from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import StatusChange
from dispatcher.rules.callback import Callback
from dispatcher.rules.render import NoCallback, RenderOptions, render
from dispatcher.rules.workspace import Workspace

AT = 1_781_010_297_487
AT_NS = 1_781_010_297_487_133_482
HOUR_MS = 3_600_000


def status_change(**changes: Any) -> StatusChange:
    return StatusChange.from_dict(
        {
            "eventId": "event-1",
            "workspace": "acme",
            "status": "DELIVERED",
            "timestamp": "2026-06-09T13:04:57.487133482Z",
            "message": {"uuid": "m-1", "src": "ZECKTA", "dest": "+233202007745"},
            **changes,
        }
    )


def workspace(dialect: str = "zeckta", callback_url: str = "https://example.com/hook") -> Workspace:
    return Workspace("acme", dialect, callback_url, (), 0, "r1")


def callback(
    change: StatusChange, customer: Workspace | None = None, now_ms: int = AT, **options: Any
) -> Callback:
    rendered = render(change, customer or workspace(), now_ms, RenderOptions(**options))
    assert isinstance(rendered, Callback)
    return rendered


def test_a_callback_has_all_that_is_fixed_at_acceptance() -> None:
    """URL, endpoint, body, digest, time and life of a callback all come from the status change and the workspace."""
    change = status_change()
    body = (
        b'{"eventId":"event-1","eventType":"MESSAGE_DELIVERED","timestamp":"2026-06-09T13:04:57.487133482Z",'
        b'"message":{"uuid":"m-1","src":"ZECKTA","dest":"+233202007745","status":"DELIVERED"}}'
    )
    expected = Callback(
        workspace="acme",
        event_id="event-1",
        event_type="MESSAGE_DELIVERED",
        status="DELIVERED",
        message_uuid="m-1",
        url="https://example.com/hook",
        endpoint="acme https://example.com:443",
        body=body,
        digest=change.digest(),
        timestamp_ns=AT_NS,
        ttl_ms=172_800_000,
    )
    assert expected == callback(change)


def test_the_dialect_is_the_workspaces() -> None:
    """The same status change is another platform's callback in another workspace."""
    rendered = callback(status_change(), workspace("sendexa"))
    assert ("sms.delivered", "sms.delivered") == (rendered.event_type, json.loads(rendered.body)["event"])


def test_the_changes_url_goes_first() -> None:
    """A callbackUrl in the status change takes the place of the workspace's."""
    rendered = callback(status_change(callbackUrl="https://Other.example:8443/x"))
    assert ("https://Other.example:8443/x", "acme https://other.example:8443") == (
        rendered.url,
        rendered.endpoint,
    )


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://example.com", "https://example.com:443"),
        ("https://EXAMPLE.com:443/other?x=1", "https://example.com:443"),
        ("https://bücher.example", "https://xn--bcher-kva.example:443"),
        ("https://[2606:4700::1111]:8443/", "https://[2606:4700::1111]:8443"),
        ("http://example.com/hook", "http://example.com:80"),
    ],
)
def test_an_endpoint_is_workspace_and_origin(url: str, origin: str) -> None:
    """Callbacks of a workspace to one scheme, host and port share an endpoint, whatever their paths."""
    assert (
        f"acme {origin}" == callback(status_change(), workspace(callback_url=url), allow_http=True).endpoint
    )


@pytest.mark.parametrize("url", ["http://example.com", "https://user@example.com", "example.com"])
def test_a_url_that_may_not_be_called_is_refused(url: str) -> None:
    """The URL is checked again for each callback, the status change's like the workspace's."""
    with pytest.raises(InvalidInput, match=r"^callback URL must"):
        callback(status_change(callbackUrl=url))
    with pytest.raises(InvalidInput, match=r"^callback URL must"):
        callback(status_change(), workspace(callback_url=url))


@pytest.mark.parametrize(("seconds", "ttl_ms"), [(None, 60_000), (1, 1_000), (604_800, 604_800_000)])
def test_the_changes_ttl_goes_first(seconds: int | None, ttl_ms: int) -> None:
    """ttlSeconds takes the place of the default expiry."""
    assert ttl_ms == callback(status_change(ttlSeconds=seconds), expiry_ms=60_000).ttl_ms


@pytest.mark.parametrize("now_ms", [AT - HOUR_MS, AT, AT + 10**12])
def test_an_hour_ahead_is_tolerated(now_ms: int) -> None:
    """A timestamp may lie up to an hour ahead, and any time ago."""
    assert AT_NS == callback(status_change(), now_ms=now_ms).timestamp_ns


@pytest.mark.parametrize(("ahead_ms", "hours"), [(HOUR_MS + 1, "1.0"), (3 * HOUR_MS, "3.0")])
@pytest.mark.parametrize("status", ["DELIVERED", "QUEUED"])
def test_more_than_an_hour_ahead_is_refused(status: str, ahead_ms: int, hours: str) -> None:
    """A timestamp further ahead is an error that names the field, also where no callback would follow."""
    with pytest.raises(InvalidInput, match=rf"^timestamp: lies {hours} h ahead; at most 1 h is allowed$"):
        render(status_change(status=status), workspace(), AT - ahead_ms, RenderOptions())


@pytest.mark.parametrize(
    ("dialect", "status"),
    [
        *(("zeckta", s) for s in ("SCHEDULED", "QUEUED", "PROCESSING", "BUFFERED", "READ", "UNKNOWN")),
        *(("sendexa", s) for s in ("SCHEDULED", "PROCESSING", "SUBMITTED", "BUFFERED", "READ", "UNKNOWN")),
    ],
)
def test_some_statuses_cause_no_callback(dialect: str, status: str) -> None:
    """A status the platform does not report is NoCallback, not an error."""
    assert NoCallback() == render(status_change(status=status), workspace(dialect), AT, RenderOptions())


@pytest.mark.parametrize(
    ("status", "accepted_at", "took_ms"),
    [
        ("DELIVERED", "2026-06-09T13:04:50Z", 7487),
        ("DELIVERED", "2026-06-09T14:04:50Z", 0),
        ("DELIVERED", None, None),
        ("DELIVERED", "0001-01-01T00:00:00Z", None),
        ("DELIVERED", "1970-01-01T00:00:00Z", None),
        ("SENT", "2026-06-09T13:04:50Z", None),
    ],
)
def test_time_to_delivered(status: str, accepted_at: str | None, took_ms: int | None) -> None:
    """It is from the message's acceptance to DELIVERED, where both are known."""
    message = {"uuid": "m-1", "src": "ZECKTA", "dest": "+233202007745", "acceptedAt": accepted_at}
    assert took_ms == callback(status_change(status=status, message=message)).to_delivered_ms
