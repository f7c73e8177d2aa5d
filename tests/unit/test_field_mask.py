"""Which fields a subscription may leave out of its callbacks, and what remains."""

import json
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import StatusChange
from dispatcher.rules.callback import Callback
from dispatcher.rules.dialects import dialects, field_paths, identifying_paths
from dispatcher.rules.field_mask import MAX_PATHS, check_mask, masked
from dispatcher.rules.render import RenderOptions, fan_out, render
from dispatcher.rules.subscription import Subscription
from dispatcher.rules.workspace import Workspace

AT = 1_781_010_297_487
CHANGE: dict[str, Any] = {
    "eventId": "e1",
    "workspace": "acme",
    "status": "FAILED",
    "timestamp": "2026-06-09T13:04:57Z",
    "message": {
        "uuid": "m-1",
        "src": "ACME",
        "dest": "+233202007745",
        "cost": "0.10",
        "reference": {"order": 17},
        "provider": {"code": "0"},
    },
    "error": {"code": "E1", "message": "no"},
}


def body(dialect: str, *mask: str) -> bytes:
    """The body of a workspace with this mask."""
    workspace = Workspace("acme", dialect, "https://a.example/", (), 0, "r1", without_fields=mask)
    rendered = render(StatusChange.from_dict(CHANGE), workspace, AT, RenderOptions())
    assert isinstance(rendered, Callback)
    return rendered.body


@pytest.mark.parametrize("dialect", dialects())
def test_every_path_can_be_left_out_or_is_needed(dialect: str) -> None:
    """Each known path that does not tell what the callback is can be left out, and all of them together."""
    needed = identifying_paths(dialect)
    assert needed
    free = [path for path in field_paths(dialect) if path not in needed]
    assert check_mask(free, dialect) == tuple(free)
    left = set(leaves(json.loads(body(dialect, *free))))
    assert left - {"error", "data.error", "message.provider", "message.sms"} <= set(needed)
    assert left & set(needed) == set(needed)


def leaves(value: dict[str, Any], above: str = "") -> list[str]:
    """The paths of what is in an object."""
    found = []
    for name, one in value.items():
        found += leaves(one, f"{above}{name}.") if isinstance(one, dict) and one else [above + name]
    return found


@pytest.mark.parametrize(
    ("dialect", "needed"),
    [
        ("zeckta", {"eventId", "eventType", "message.uuid", "message.status"}),
        ("namirial", {"id", "type", "message.id", "message.status"}),
        ("qlara", {"eventType", "messageId", "statusCode"}),
        ("sendexa", {"event", "messageId", "status"}),
        ("sendexa-distinct", {"event", "messageId", "status"}),
        ("sendexa-plain", {"messageId", "status"}),
        ("sendexa-sdk", {"event", "data.messageId", "data.status"}),
        ("sendexa-short", {"event", "message_id", "status"}),
        ("sendexa-snake", {"event", "message_id", "status"}),
    ],
)
def test_what_tells_a_callback_apart(dialect: str, needed: set[str]) -> None:
    """Event, type, message and status of each platform."""
    assert needed == set(identifying_paths(dialect))


def test_a_field_less() -> None:
    """The others stay as they were, in their order."""
    whole = body("zeckta")
    assert body("zeckta", "message.dest") == whole.replace(b'"dest":"+233202007745",', b"")
    assert body("zeckta", "message.dest", "timestamp", "message.units") == (
        b'{"eventId":"e1","eventType":"MESSAGE_FAILED","message":{"uuid":"m-1","src":"ACME","status":"FAILED",'
        b'"cost":0.10}}'
    )


def test_an_object_with_all_that_is_in_it() -> None:
    """The path of an object leaves out its fields, and what backends put there."""
    assert b"provider" not in body("namirial", "message.provider")
    assert b"order" not in body("namirial", "message.reference")


def test_the_status_change_is_not_touched() -> None:
    """The same one is rendered for others after that."""
    given = {"a": {"b": 1, "c": {"d": 2}}}
    assert masked(given, ["a.b", "a.c.d", "a.x.y", "q"]) == {"a": {"c": {}}}
    assert given == {"a": {"b": 1, "c": {"d": 2}}}


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (
            ["dest"],
            "zeckta has no field 'dest'; it can leave out message.attempts, message.cost, message.dest,",
        ),
        (["message.destination"], "has no field 'message.destination'"),
        (["message.dest.x"], "has no field"),
        ([""], "has no field ''"),
        (["Message.dest"], "has no field"),
        (["eventId"], "eventId cannot be left out: it tells the event's id"),
        (["eventType"], "eventType cannot be left out: it tells the type of the event"),
        (["message.uuid"], "message.uuid cannot be left out: it tells the message's id"),
        (["message.status"], "message.status cannot be left out: it tells the status"),
        (["message"], "message holds message.(uuid|status), which cannot be left out"),
        ([f"x{n}" for n in range(MAX_PATHS + 1)], "at most 50 fields can be left out, not 51"),
    ],
)
def test_refused(paths: list[str], says: str) -> None:
    """Unknown paths with the known ones, needed ones with the reason."""
    with pytest.raises(InvalidInput, match=says):
        check_mask(paths, "zeckta")


def test_each_subscription_its_own() -> None:
    """Of one status change, three bodies: whole, and without what each asked for."""

    def receiver(name: str, *mask: str) -> Subscription:
        return Subscription(name, "zeckta", f"https://{name}.example/", (), 0, without_fields=mask)

    workspace = Workspace(
        "acme", "zeckta", "https://a.example/", (), 0, "r1", without_fields=("message.cost",)
    )
    both = {"crm": receiver("crm", "message.dest"), "all": receiver("all")}
    found = fan_out(
        StatusChange.from_dict(CHANGE), replace(workspace, subscriptions=both), AT, RenderOptions()
    )
    bodies = {one.event_id: one.body for one in found}
    assert bodies == {
        "e1.crm": body("zeckta", "message.dest"),
        "e1.all": body("zeckta"),
        "e1": body("zeckta", "message.cost"),
    }


def test_a_url_of_its_own() -> None:
    """A callback to the status change's own URL is on the default subscription's terms."""
    workspace = Workspace("acme", "zeckta", "", (), 0, "r1", without_fields=("message.dest",))
    change = StatusChange.from_dict(CHANGE | {"callbackUrl": "https://own.example/"})
    rendered = render(change, workspace, AT, RenderOptions())
    assert isinstance(rendered, Callback)
    assert b'"dest"' not in rendered.body
