"""Subscriptions against a small model: added, changed, paused and removed between any two calls, with scripts that break off."""

from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcher.errors import RedisUnavailable, StillWaiting
from dispatcher.model import Status, StatusChange, iso
from dispatcher.rules.endpoint_name import callback_id, event_id_of, subscription_of
from dispatcher.rules.outcomes import Delivered, EndpointHealth, Failed, Outcome, Retry
from dispatcher.rules.render import RenderOptions, fan_out
from dispatcher.rules.subscription import ORDERINGS
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import LedgerOptions, Room, ToAccept
from dispatcher.store.endpoints_of import Owned
from dispatcher.store.entry import Entry, read_entry
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Ended
from dispatcher.store.sealing import SecretBox
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces
from tests.leaks import leaked_keys
from tests.world import START_MS, TOKEN, World

NAMES = ("crm", "billing", "Audit", "x-1")
HOSTS = "ab"
DELIVERED_ONLY = ("MESSAGE_DELIVERED",)
EVENTS = {Status.SENT: "MESSAGE_SENT", Status.DELIVERED: "MESSAGE_DELIVERED"}
LEASE_MS, THREE_DAYS_MS = 30_000, 259_200_000
MAX_WAITING = 6
OUTCOMES: list[Outcome] = [Delivered(), Delivered(), Failed(), Retry(0), Retry(15_000)]


def endpoint_of(name: str, host: str = "a") -> str:
    """The endpoint of a subscription (empty: the default one) at one of its two servers."""
    return (
        f"acme.{name} https://{name.lower()}-{host}.example:443"
        if name
        else f"acme https://own-{host}.example:443"
    )


ENDPOINTS = [endpoint_of(name, host) for name in ("", *NAMES) for host in HOSTS]


@dataclass
class Terms:
    """What the model knows about a subscription."""

    events: tuple[str, ...] = ()
    url: str = ""

    def wants(self, status: Status) -> bool:
        """Whether a status change with this status becomes a callback for it."""
        return bool(self.url) and (not self.events or EVENTS[status] in self.events)


@dataclass
class Told:
    """A status change that was accepted, or that a run that broke off has begun."""

    change: StatusChange
    wanted: set[str]
    """The ids of its callbacks."""
    maybe: set[str]
    """Those that a run that broke off may have taken in for subscriptions that are different now."""


class RacedWorkspaces(Workspaces):
    """Lets a status change be accepted after the endpoints were looked at, and before what follows from that."""

    between: Coroutine[Any, Any, None] | None = None

    async def endpoints(self, workspace: str, subscription: str | None = None) -> list[Owned]:
        """As they are; then what is to come in between happens, once."""
        found = await super().endpoints(workspace, subscription)
        if self.between:
            between, self.between = self.between, None
            await between
        return found


class SubscriptionMachine(RuleBasedStateMachine):
    """Subclasses make the world."""

    world: World

    def make_world(self) -> World:
        """One whose scripts can break off: it has `break_at`."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        self.world.ledger.options = LedgerOptions(lease_ms=LEASE_MS, max_waiting=MAX_WAITING)
        self.world.ledger._on_end = self.note_end
        self.workspaces = RacedWorkspaces(self.world.client, self.world.keys, SecretBox())
        self.subscriptions = Subscriptions(self.workspaces)
        self.terms: dict[str, Terms] = {}
        self.told: dict[str, Told] = {}
        self.unfinished: StatusChange | None = None
        self.begun: set[str] = set()
        """Callbacks that a run that broke off may have taken in."""
        self.hands: list[tuple[str, str, int]] = []
        """Endpoint, callback and claim of what a worker has leased."""
        self.ends: Counter[str] = Counter()
        self.replays: Counter[str] = Counter()
        self.may_break = self.broke = False
        self.before: Workspace | None = None
        """The workspace before its last change."""

    def note_end(self, ended: Ended) -> None:
        """The ledger told of an end other than delivery."""
        self.ends[ended.event_id] += 1

    @property
    def workspace(self) -> Workspace:
        return self.world.run(self.workspaces.require("acme"))

    @initialize(has_url=st.booleans(), ordering=st.sampled_from(ORDERINGS), may_break=st.booleans())
    def start(self, has_url: bool, ordering: str, may_break: bool) -> None:
        self.world.lead()
        self.may_break = may_break
        url = "https://own-a.example/hooks" if has_url else ""
        self.world.run(self.workspaces.add("acme", "zeckta", url, now_ms=START_MS, ordering=ordering))
        self.terms[""] = Terms((), url)

    def changed(self, before: Workspace) -> None:
        """Notes a change, for renders that are stale now."""
        if self.workspace.revision != before.revision:
            self.before = before

    @rule(
        name=st.sampled_from(NAMES),
        events=st.sampled_from([(), DELIVERED_ONLY]),
        ordering=st.sampled_from(ORDERINGS),
    )
    def add_or_change(self, name: str, events: tuple[str, ...], ordering: str) -> None:
        before = self.workspace
        if name in self.terms:
            self.world.run(self.subscriptions.update("acme", name, events=list(events), ordering=ordering))
            self.terms[name].events = events
        else:
            url = f"https://{name}-a.example/hooks"
            self.world.run(
                self.subscriptions.add(
                    "acme", name, url, now_ms=START_MS, events=list(events), ordering=ordering
                )
            )
            self.terms[name] = Terms(events, url)
        self.changed(before)

    @rule(name=st.sampled_from(("", *NAMES)), host=st.sampled_from(HOSTS))
    def change_url(self, name: str, host: str) -> None:
        if name not in self.terms:
            return
        before, url = self.workspace, f"https://{name or 'own'}-{host}.example/hooks"
        if not name and self.terms[""].url and host == "b":
            self.world.run(self.workspaces.replace_callback_url("acme", ""))
            url = ""
        else:
            self.world.run(self.subscriptions.update("acme", name or "default", callback_url=url))
        self.terms[name].url = url
        self.changed(before)

    @rule(name=st.sampled_from(("", *NAMES)), pauses=st.booleans())
    def pause_or_resume(self, name: str, pauses: bool) -> None:
        if name not in self.terms:
            return
        before, called = self.workspace, name or "default"
        if pauses:
            self.world.run(self.subscriptions.pause("acme", called))
        else:
            self.world.run(self.subscriptions.resume("acme", called, self.world.ledger))
        self.changed(before)

    @rule(name=st.sampled_from(NAMES), force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        if name not in self.terms:
            return
        before, waiting = self.workspace, self.pending_of(name)
        try:
            found = self.world.run(self.subscriptions.remove("acme", name, self.world.ledger, force=force))
        except StillWaiting:
            assert waiting
            assert not force
            return
        assert force or not waiting or self.broke
        assert self.broke or found == len(waiting)
        del self.terms[name]
        self.changed(before)

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 9), status=st.sampled_from([*EVENTS]))
    def remove_while_one_is_accepted(self, name: str, number: int, status: Status) -> None:
        """A callback that is accepted while a removal looks whether any waits: it is not removed under it."""
        change, workspace = self.change(number, status, None), self.workspace
        rendered = fan_out(change, workspace, self.world.now, RenderOptions())
        if name not in self.terms or self.unfinished or not rendered or change.event_id in self.told:
            return
        batch = ToAccept((entry, one) for entry in self.world.enqueued(1) for one in rendered)
        wanted = {callback_id(change.event_id, of) for of, one in self.terms.items() if one.wants(status)}
        words = list[str]()

        async def accept() -> None:
            revisions = {"acme": workspace.revision}
            words.extend((await self.world.ledger.accept(TOKEN, revisions, [], batch, Room(0))).words)

        self.workspaces.between = accept()
        try:
            self.world.run(self.subscriptions.remove("acme", name, self.world.ledger))
        except StillWaiting:
            is_removed = False
        else:
            is_removed = True
        if words[0] in ("accepted", "superseded"):
            self.told[change.event_id] = Told(
                change, wanted, self.begun & self.existing(change.event_id) - wanted
            )
        if is_removed:
            assert self.broke or not self.pending_of(name)
            del self.terms[name]
            self.changed(workspace)

    def pending_of(self, name: str) -> list[str]:
        """The callbacks of a subscription that have not ended."""
        known = [one for told in self.told.values() for one in told.wanted if subscription_of(one) == name]
        return [one for one in known if (found := self.find(one)) and not found.ended]

    def find(self, callback: str) -> Entry | None:
        raw = self.world.call("get", self.world.keys.event("acme", callback))
        return raw and read_entry(raw)

    def all(self) -> dict[str, Entry]:
        """The ledger's entries."""
        root = f"{self.world.keys.root}event:acme:"
        keys = self.world.call("keys", f"{root}*")
        texts = self.world.call("mget", keys) if keys else []
        return {
            key.decode().removeprefix(root): read_entry(text)
            for key, text in zip(keys, texts, strict=True)
            if text
        }

    @rule(
        batch=st.lists(
            st.tuples(
                st.integers(0, 9),
                st.sampled_from([Status.SENT, Status.SENT, Status.SENT, Status.DELIVERED]),
                st.sampled_from([None, None, 60]),
            ),
            min_size=1,
            max_size=3,
        ),
        room=st.sampled_from([0, 0, 3, 20]),
        is_stale=st.sampled_from([False, False, False, True]),
        breaks_at=st.sampled_from([0, 0, 0, *range(1, 25)]),
    )
    def tell(
        self, batch: list[tuple[int, Status, int | None]], room: int, is_stale: bool, breaks_at: int
    ) -> None:
        if self.unfinished:
            self.tell_again(room)
        for number, status, ttl in batch:
            self.tell_one(self.change(number, status, ttl), room, is_stale, breaks_at * self.may_break)
            if self.unfinished:
                return

    def change(self, number: int, status: Status, ttl: int | None) -> StatusChange:
        """A status change; its message follows from its number."""
        message = {"uuid": f"m{number % 2}", "src": "ACME", "dest": "+233200000001"}
        at = iso(START_MS + number)
        fields = {"eventId": f"e{number}", "workspace": "acme", "status": status, "timestamp": at}
        return StatusChange.from_dict(fields | {"message": message} | ({"ttlSeconds": ttl} if ttl else {}))

    @precondition(lambda self: self.unfinished)
    @rule(room=st.sampled_from([0, 3]))
    def tell_again(self, room: int) -> None:
        """Intake has an entry accepted that a run that broke off had left on the queue."""
        change, self.unfinished = self.unfinished, None
        assert change
        self.tell_one(change, room, False, 0)

    def tell_one(self, change: StatusChange, room: int, is_stale: bool, breaks_at: int) -> None:
        """Has one accepted, and checks its word and its callbacks."""
        workspace = self.workspace
        stale = self.before if is_stale and self.before else None
        rendered = fan_out(change, stale or workspace, self.world.now, RenderOptions())
        if not rendered:
            return
        known = self.told.get(change.event_id)
        before = self.existing(change.event_id)
        wanted = {
            f"{change.event_id}.{name}" if name else change.event_id
            for name, one in self.terms.items()
            if one.wants(change.status)
        }
        try:
            word = self.accept(change, rendered, (stale or workspace).revision, room, breaks_at)
        except RedisUnavailable:
            self.broke, self.unfinished = True, change
            self.begun |= {one.event_id for one in rendered}
            return
        finally:
            self.world.break_at = 0  # type: ignore[attr-defined]
        if stale:
            assert (word, self.existing(change.event_id)) == ("changed", before)
        elif known:
            assert word == ("duplicate" if known.change.digest() == change.digest() else "conflict")
            assert self.existing(change.event_id) == before
        elif word == "full":
            assert (wanted, self.existing(change.event_id)) == ({change.event_id}, before)
        else:
            assert word in ("accepted", "superseded") or self.broke
            found, maybe = self.existing(change.event_id), self.begun & before - wanted - {change.event_id}
            if (
                change.event_id in before
            ):  # then it was accepted by the run that broke off, for those of that time
                assert found == before
                wanted, maybe = before & self.begun, set()
            self.told[change.event_id] = Told(change, wanted, maybe)
            assert wanted <= found <= wanted | maybe | {change.event_id}
            assert change.event_id in found

    def accept(self, change: StatusChange, rendered: Any, revision: str, room: int, breaks_at: int) -> str:
        batch = ToAccept((entry, one) for entry in self.world.enqueued(1) for one in rendered)
        self.world.break_at = breaks_at  # type: ignore[attr-defined]
        accepted = self.world.run(self.world.ledger.accept(TOKEN, {"acme": revision}, [], batch, Room(room)))
        for id_, claim in accepted.claims:
            name = next(one for one in ENDPOINTS if endpoint_id(one) == id_)
            self.hands += [(name, one.event_id, one.claim) for one in claim.callbacks]
        [word] = accepted.words
        return word

    def existing(self, event_id: str) -> set[str]:
        """The ids of a status change's entries in the ledger."""
        root = f"{self.world.keys.root}event:acme:"
        found = [key.decode().removeprefix(root) for key in self.world.call("keys", f"{root}{event_id}*")]
        return {one for one in found if event_id_of(one) == event_id}

    @rule(endpoint=st.sampled_from(ENDPOINTS), count=st.integers(1, 5))
    def claim(self, endpoint: str, count: int) -> None:
        claim = self.world.claim(endpoint, count)
        of = endpoint.split()[0].partition(".")[2]
        assert claim.subscription == of or not claim.callbacks
        for one in claim.callbacks:
            assert subscription_of(one.event_id) == of
            self.hands.append((endpoint, one.event_id, one.claim))

    @rule(data=st.data(), outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=4))
    def settle(self, data: st.DataObject, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if self.hands:
                self.record(data.draw(st.sampled_from(self.hands)), outcome)

    def record(self, hand: tuple[str, str, int], outcome: Outcome) -> None:
        """Settles one."""
        self.hands.remove(hand)
        endpoint, callback, claim = hand
        is_good = isinstance(outcome, Delivered)
        _, counted = self.world.settle(
            callback,
            claim,
            outcome,
            endpoint=endpoint,
            error=None if is_good else "http_500",
            health=EndpointHealth.UP if is_good else EndpointHealth.ANSWERED,
        )
        self.ends[callback] += counted and is_good

    @rule()
    def workers_die(self) -> None:
        self.hands.clear()
        self.world.now += LEASE_MS
        self.lose()

    def lose(self) -> None:
        for one in self.world.run(self.world.ledger.wake()).lost:
            self.world.settle(
                one.event_id, one.claim, Retry(0), endpoint=one.endpoint_name, error="worker_lost", losses=1
            )

    @rule(ms=st.sampled_from([1, 1_000, 61_000]))
    def wait_and_expire(self, ms: int) -> None:
        self.world.now += ms
        self.world.run(self.world.ledger.expire())

    @rule(data=st.data(), does=st.sampled_from(["replay", "replay", "cancel"]))
    def operate(self, data: st.DataObject, does: str) -> None:
        """Sends one again, or ends one."""
        ids = sorted(one for told in self.told.values() for one in told.wanted)
        if not ids:
            return
        callback = data.draw(st.sampled_from(ids))
        found = self.find(callback)
        assert found
        if does == "replay":
            word = self.world.run(self.world.ledger.replay("acme", callback, ttl_ms=60_000))
            assert (word == "not_ended") == (not found.ended)
            self.replays[callback] += word == "replayed"
        else:
            self.world.run(self.world.ledger.cancel(found.endpoint, [Waiting(callback)]))

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """All that ended of a status change is removed: it is accepted again once nothing is left of it."""
        if not self.told:
            return
        event_id = data.draw(st.sampled_from(sorted(self.told)))
        told = self.told[event_id]
        ids = sorted(told.wanted | told.maybe)
        found = {one: self.find(one) for one in ids}
        if not ids or any(one and not one.ended for one in found.values()):
            return
        self.world.run(self.world.ledger.forget("acme", ids))
        assert self.existing(event_id) == set()
        del self.told[event_id]
        for one in ids:
            del self.ends[one], self.replays[one]
            self.begun.discard(one)

    @invariant()
    def ledger_agrees(self) -> None:
        """Each ended at most once for each time that it was taken in or replayed; what waits is counted."""
        there, waiting = self.all(), Counter[str]()
        ids = {event_id: {one for one in there if event_id_of(one) == event_id} for event_id in self.told}
        for event_id, told in self.told.items():
            assert told.wanted <= ids[event_id] <= told.wanted | told.maybe | {event_id}
            for one in told.wanted:
                assert self.ends[one] <= 1 + self.replays[one]
                assert self.broke or self.ends[one] == there[one].ended + self.replays[one]
                waiting[there[one].endpoint] += not there[one].ended
        if self.broke:
            return
        assert there.keys() == {one for of in ids.values() for one in of}
        for endpoint in ENDPOINTS:
            kept = self.world.call("hget", self.world.keys.endpoint(endpoint_id(endpoint)), "waiting")
            assert int(kept or 0) == waiting[endpoint_id(endpoint)], endpoint
        assert self.world.call("zcard", self.world.keys.expiries) == waiting.total()

    def is_shown(self) -> None:
        """`event show` lists the callbacks of a status change that there are."""
        for event_id in self.told:
            own = self.world.event(event_id)
            shown = {one.event_id for one in self.world.run(self.world.callbacks.others(own))}
            assert shown == self.existing(event_id) - {event_id}

    def teardown(self) -> None:
        """With workers that deliver, each callback comes to its end, once, and leaves nothing behind."""
        if self.unfinished:
            self.tell_again(0)
        for name in self.terms:
            self.world.run(self.subscriptions.resume("acme", name or "default", self.world.ledger))
        if (
            self.broke
        ):  # what accept has begun for a subscription that is gone is in no expiries until a sweep
            self.sweep()
        for _ in range(40):
            if not self.world.call("zcard", self.world.keys.expiries):
                break
            self.world.now += LEASE_MS
            self.sweep()
            self.lose()
            self.hands.clear()
            for endpoint in ENDPOINTS:
                for one in self.world.deliver_all(endpoint):
                    self.ends[one] += 1
        if self.broke:  # what an end that broke off has left is completed when its expiry comes
            self.world.now += THREE_DAYS_MS
            self.world.run(self.world.ledger.expire())
        assert 0 == self.world.call("zcard", self.world.keys.expiries)
        self.ledger_agrees()
        self.is_shown()
        assert all(one.ended for one in self.all().values())
        self.world.call("delete", self.world.keys.events)
        tolerated = ("stats:", "ended:", "chain:", "rejected", "endpoint:") if self.broke else ()
        assert [] == [
            key
            for key in leaked_keys(self.world)
            if not key.startswith(tuple(self.world.keys.root + one for one in tolerated))
        ]
        self.world.close()

    def sweep(self) -> None:
        """Looks at everything, as the leader of intake does."""
        cursor = "0"
        while (cursor := self.world.run(self.world.ledger.sweep(cursor, 1000)).cursor) != "0":
            pass
