"""The trail on a real server: what is in it, what never is, and that it stops nothing."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.store import audit as module
from dispatcher.store.audit import Audit, Who, described, difference, is_changed, operator, shown_url
from dispatcher.store.sealing import SecretBox
from dispatcher.store.wire import Wire
from dispatcher.store.workspaces import Workspaces
from tests.world import World

URL = "https://a.example/hooks"
BILLING = Who("api", "key_1 (billing)")


@pytest.fixture
def audit(world: World) -> Iterator[Audit]:
    """A trail on the world's Redis."""
    wire = Wire(world.client)
    yield Audit(wire.call, world.keys, "", Who("command", "alice@host"), 60_000)
    world.run(wire.close())


def test_added_and_listed(world: World, audit: Audit) -> None:
    """Changes are listed the newest first, of all or of a workspace, each with who, what, from and to; and logged."""
    with capture_logs() as logs:
        world.run(audit.add("workspace.add", "acme", after={"callbackUrl": URL}))
        world.run(
            audit.by(BILLING).add("webhook.delete", "bluefin", {"callbackUrl": URL}, {"callbackUrl": None})
        )
        world.run(audit.add("workspace.rotate_encryption", after={"workspaces": 2}))
    found = [one.as_json() for one in world.run(audit.latest(10))]
    assert ["workspace.rotate_encryption", "webhook.delete", "workspace.add"] == [
        one["what"] for one in found
    ]
    assert {
        "via": "api", "who": "key_1 (billing)", "what": "webhook.delete", "workspace": "bluefin",
        "from": {"callbackUrl": URL}, "to": {"callbackUrl": None},
    } == {name: value for name, value in found[1].items() if name != "at"}  # fmt: skip
    assert [("audit", "alice@host"), ("audit", "key_1 (billing)"), ("audit", "alice@host")] == [
        (line["event"], line["who"]) for line in logs
    ]
    assert ["workspace.add"] == [one.what for one in world.run(audit.latest(10, "acme"))]
    assert ["workspace.rotate_encryption"] == [one.what for one in world.run(audit.latest(1))]
    assert 0 < world.call("pttl", world.keys.audit) <= 60_000


def test_listed_over_pages(world: World, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace's changes are found behind any number of others'."""
    monkeypatch.setattr(module, "READ_AT_ONCE", 3)
    for number in range(10):
        world.run(audit.add(f"change.{number}", "acme" if number in (0, 5) else "other"))
    assert ["change.5", "change.0"] == [one.what for one in world.run(audit.latest(10, "acme"))]
    assert 10 == len(world.run(audit.latest(100)))


def test_a_reader_may_stop_early(world: World, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks at the latest changes alone, so that it costs as much however many there are."""
    monkeypatch.setattr(module, "READ_AT_ONCE", 3)
    for number in range(10):
        world.run(audit.add(f"change.{number}", "acme" if number in (0, 5) else "other"))
    assert ["change.5"] == [one.what for one in world.run(audit.latest(10, "acme", most=6))]
    assert [] == world.run(audit.latest(10, "acme", most=3))


def test_trail_is_bounded(world: World, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room, in whole nodes of the stream."""
    monkeypatch.setattr(module, "KEPT", 100)

    async def many() -> None:
        for number in range(350):
            await audit.add(f"change.{number}")

    world.run(many())
    assert 100 <= world.call("xlen", world.keys.audit) <= 200
    assert "change.349" == world.run(audit.latest(1))[0].what


def test_the_portal_and_links_to_it_remove_no_other_change(
    world: World, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a customer acts, or a backend asks for links: they are listed among the others, and bounded by themselves."""
    monkeypatch.setattr(module, "KEPT", 10)
    customer = audit.by(Who("portal", "jane (portal:acme)"))

    async def many() -> None:
        await audit.add("workspace.update", "globex")
        await customer.add("subscription.pause", "acme")
        for _ in range(300):
            await audit.by(BILLING).add("portal_link.add", "globex")
        assert ["subscription.pause"] == [one.what for one in await audit.latest(10, "acme")]
        for _ in range(300):
            await customer.add("subscription.resume", "acme")
        await audit.by(BILLING).add("webhook.delete", "globex")

    world.run(many())
    found = world.run(audit.latest(1000))
    assert {"workspace.update", "webhook.delete", "portal_link.add", "subscription.resume"} == {
        one.what for one in found
    }
    assert ("webhook.delete", "workspace.update") == (found[0].what, found[-1].what)
    assert len(found) < 300
    own = world.run(audit.latest(1000, portal=False))
    assert ["webhook.delete", "workspace.update"] == [one.what for one in own]
    for key in (world.keys.audit_portal, world.keys.audit_links):
        assert 0 < world.call("pttl", key) <= 60_000


def test_change_stands_without_its_entry(world: World, audit: Audit) -> None:
    """What cannot be written fails nothing: the change is in the log, and so is why it is not in the trail."""
    world.call("set", world.keys.audit, "no stream", ex=60)

    async def away(*_command: object) -> Any:
        raise ConnectionError("away")

    for broken in (audit, Audit(away, world.keys, "", audit.who)):
        with capture_logs() as logs:
            world.run(broken.add("workspace.add", "acme"))
        assert ["audit.unwritten", "audit"] == [line["event"] for line in logs]
        assert "workspace.add" == logs[1]["what"] == logs[0]["what"]


def test_quiet_line(world: World, audit: Audit) -> None:
    """Where somebody looks at a terminal the line is for debugging, unless it is all that is left of the change."""
    quiet = Audit(audit.call, audit.keys, "", audit.who, quiet=True)
    with capture_logs() as logs:
        world.run(quiet.add("workspace.add", "acme"))
        world.call("delete", world.keys.audit)
        world.call("set", world.keys.audit, "no stream", ex=60)
        world.run(quiet.add("workspace.add", "acme"))
    assert [("audit", "debug"), ("audit.unwritten", "error"), ("audit", "info")] == [
        (line["event"], line["log_level"]) for line in logs
    ]


def test_steps_that_are_broken_off(world: World, audit: Audit) -> None:
    """What was done until then is in the trail; where nothing was done, nothing is."""

    async def work(steps: int) -> None:
        async with audit.steps("event.replay", "acme", state="failed", error=None) as done:
            for number in range(steps):
                done["replayed"] = number + 1
            raise asyncio.CancelledError

    for steps in (0, 3):
        with pytest.raises(asyncio.CancelledError):
            world.run(work(steps))
    assert [{"state": "failed", "replayed": 3}] == [one.after for one in world.run(audit.latest(9))]


def test_workspace_without_its_secrets(world: World) -> None:
    """Of a workspace the trail has what changed, of headers the names, of URLs no query, and never a secret."""
    workspaces = Workspaces(world.client, world.keys, SecretBox())
    made = world.run(
        workspaces.add("acme", "zeckta", f"{URL}?token=hush-1", now_ms=1, headers={"X-Key": "hush-2"})
    )
    told: list[object] = [difference(made), described(made)]
    changes: list[dict[str, Any]] = [
        {"max_concurrency": 5},
        {"headers": {"X-Key": "hush-3"}},
        {"headers": {"X-Other": "hush-4"}},
        {"callback_url": f"{URL}?token=hush-5"},
    ]
    for change in changes:
        changed = world.run(workspaces.update("acme", now_ms=1, **change))
        assert is_changed(changed)
        told.append(difference(changed))
    assert [
        ({"maxConcurrency": None}, {"maxConcurrency": 5}),
        ({}, {"headersChanged": ["X-Key"]}),
        ({"headers": ["X-Key"]}, {"headers": ["X-Key", "X-Other"], "headersChanged": ["X-Other"]}),
        ({"callbackUrl": f"{URL}?…"}, {"callbackUrl": f"{URL}?…"}),
    ] == told[2:]
    rotated = world.run(workspaces.rotate_secret("acme", now_ms=2, grace_ms=1000))
    told.append(difference(rotated))
    assert "secrets" in difference(rotated)[1]
    assert not is_changed(world.run(workspaces.update("acme", now_ms=1, max_concurrency=5)))
    text = repr(told)
    assert "hush" not in text
    assert [] == [one.text for one in rotated.secrets if one.text in text]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", None),
        ("https://u:hush@a.example:8443/p?q=hush", "https://a.example:8443/p?…"),
        ("https://[::1]/p", "https://[::1]/p"),
        ("https://[hush", "…"),
    ],
)
def test_shown_url(url: str, shown: str | None) -> None:
    """A URL is shown without user name and query, one that cannot be read not at all."""
    assert shown == shown_url(url)


def test_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's user is the system's, not the environment's; who stands behind sudo is told beside it."""
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert ("command", False) == (operator().via, "somebody-else" in operator().name)
    monkeypatch.setenv("SUDO_USER", "alice")
    assert operator().name.startswith("alice as ")
