"""The ledger's scripts against a small model: any order of calls, crashes, lost and repeated hints and replies."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcher.rules.callback import Claimed
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import (
    Delivered,
    EndpointHealth,
    Expired,
    Failed,
    Outcome,
    Released,
    Retry,
    State,
)
from dispatcher.rules.subscription import ORDERINGS
from dispatcher.store.arguments import HINT_MS
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Claim, Lost, Stopped
from dispatcher.store.wire import Wire
from tests.leaks import leaked_keys
from tests.world import World, callback

ENDPOINTS = ("acme https://a.example:443", "beta https://b.example:443")
MESSAGES = ("m1", "m2")
MAX_CONCURRENCY = 4
LEASE_MS = 30_000

Result = tuple[Outcome, EndpointHealth, int]
"""What becomes of a callback, what a bad answer says of the endpoint, and its Retry-After (ms)."""

RESULTS = st.tuples(
    st.sampled_from(
        [
            Delivered(),
            Delivered(),
            Failed(),
            Expired(),
            Retry(0),
            Retry(0),
            Retry(15_000),
            Released(0),
            Released(1000),
        ]
    ),
    st.sampled_from([EndpointHealth.DOWN, EndpointHealth.DOWN, EndpointHealth.ANSWERED]),
    st.sampled_from([0, 0, 0, 12_000]),
)
MOVES = {
    EndpointHealth.UP: lambda w: min(w + 1, MAX_CONCURRENCY),
    EndpointHealth.DOWN: lambda w: max(w // 2, 1),
}
BREAKER_FAILURES, FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 3, 10_000, 25_000


@dataclass
class Breaker:
    """What the model knows about an endpoint: its failures in a row, and its pause."""

    failures: int = 0
    pause: int = 0
    length: int = 0
    probe: tuple[str, int] | None = None
    """EventId and claim number of the one callback that decides about the pause."""
    stopped: bool = False

    def learn(self, health: EndpointHealth, retry_after_ms: int, now: int, *, probe: bool) -> None:
        """What a counted result changes."""
        if health in (EndpointHealth.UP, EndpointHealth.ANSWERED):
            self.failures = 0
            if probe:
                self.pause = self.length = 0
        elif health is EndpointHealth.NONE:
            self.pause = now if probe else self.pause
        elif probe or self.pause == 0:
            self.failures += 1
            is_probe_of_breaker = (
                probe and self.length > 0
            )  # else a Retry-After paused it: one failure of many
            if is_probe_of_breaker or self.failures >= BREAKER_FAILURES:
                self.length = min(
                    self.length * 2 if is_probe_of_breaker else FIRST_PAUSE_MS, LONGEST_PAUSE_MS
                )
                self.pause = now + max(self.length, retry_after_ms)
            else:
                self.pause = now + retry_after_ms if retry_after_ms else 0
        if probe:
            self.probe = None


@dataclass
class Modelled:
    """What the model knows about one callback."""

    endpoint: str
    message: str
    digest: str
    expires: int
    due: int
    place: str = "waiting"
    """waiting, leased or ended"""
    claim: int = 0
    attempts: int = 0
    suspect: bool = False
    """Its worker died with it twice."""
    in_chain: bool = True
    stamp: int = 0
    recorded: tuple[int, str | None] | None = None
    """Start and error of the attempt that was recorded last."""

    def holds(self, claim: int) -> bool:
        """Whether a result with this claim number is recorded."""
        return (self.place, self.claim) == ("leased", claim)

    def knows(self, claim: int, attempt: tuple[int, str | None] | None) -> bool:
        """Whether this very attempt was recorded before: the reply was lost, and the call repeated."""
        is_last = attempt is not None and attempt == self.recorded
        return self.place != "leased" and self.claim == claim and is_last


class LedgerMachine(RuleBasedStateMachine):
    """Subclasses say which Redis by `make_client`."""

    def __init__(self) -> None:
        super().__init__()
        client = self.make_client()
        self.world = World(
            client,
            self.make_wire(client),
            max_concurrency=MAX_CONCURRENCY,
            lease_ms=LEASE_MS,
            breaker_failures=BREAKER_FAILURES,
            breaker_pause_ms=FIRST_PAUSE_MS,
            breaker_max_pause_ms=LONGEST_PAUSE_MS,
        )
        self.model: dict[tuple[str, str], Modelled] = {}
        self.windows = dict.fromkeys(ENDPOINTS, 2)
        self.breakers = {endpoint: Breaker() for endpoint in ENDPOINTS}
        self.hands: list[tuple[str, Claimed | Lost]] = []
        self.hints: list[str] = []

    def make_client(self) -> Any:
        """An asyncio client of an empty Redis."""
        raise NotImplementedError

    def make_wire(self, client: Any) -> Wire | None:
        """How a worker sends commands; None where there are no sockets."""
        return None

    @initialize(orderings=st.tuples(st.sampled_from(ORDERINGS), st.sampled_from(ORDERINGS)))
    def lead(self, orderings: tuple[str, str]) -> None:
        self.world.lead()
        self.orderings = dict(zip(ENDPOINTS, orderings, strict=True))
        for endpoint, ordering in self.orderings.items():
            self.world.call("hset", self.world.keys.workspace(endpoint.split()[0]), "ordering", ordering)

    @rule(
        batch=st.lists(
            st.tuples(
                st.sampled_from([f"e{n}" for n in range(20)]),
                st.sampled_from(ENDPOINTS),
                st.sampled_from(MESSAGES),
                st.sampled_from([1_000, 60_000, 172_800_000, 172_800_000]),
                st.sampled_from(["d1", "d1", "d1", "d2"]),
                st.sampled_from([0, 0, -1, -20_000]),
            ),
            min_size=1,
            max_size=5,
        ),
        room=st.sampled_from([0, 0, 1, 3, 8]),
    )
    def accept(self, batch: list[tuple[str, str, str, int, str, int]], room: int) -> None:
        expected, changes = [], []
        for event_id, endpoint, message, ttl_ms, digest, age in batch:
            stamp = self.world.now + age
            changes.append(
                callback(
                    event_id,
                    endpoint=endpoint,
                    message=message,
                    ttl_ms=ttl_ms,
                    digest=digest,
                    timestamp_ms=stamp,
                )
            )
            key = EndpointName.parse(endpoint).workspace, event_id
            known = self.model.get(key)
            if known:
                expected.append("duplicate" if known.digest == digest else "conflict")
                continue
            now, expires = self.world.now, stamp + ttl_ms
            newer = self.orderings[endpoint] == "latest" and stamp < self.newest(endpoint, message)
            self.model[key] = new = Modelled(endpoint, message, digest, expires, due=now, stamp=stamp)
            expected.append("superseded" if newer else "accepted")
            if newer:
                new.place, new.in_chain = "ended", False
            else:
                self.supersede(new)
        windows = {endpoint: self.room(endpoint) for endpoint in ENDPOINTS}
        hints, words = self.world.accept(*changes, claim=room)
        assert expected == words
        for endpoint in ENDPOINTS:
            self.find_expired(endpoint)
        for id_, claim in self.world.claims:
            endpoint = next(name for name in ENDPOINTS if endpoint_id(name) == id_)
            assert len(claim.callbacks) <= room
            room -= len(claim.callbacks)
            self.take_claim(endpoint, claim, windows[endpoint])
        self.take_hints(hints)

    def newest(self, endpoint: str, message: str) -> int:
        """The newest timestamp of a message to an endpoint so far."""
        return max(
            (m.stamp for m in self.model.values() if (m.endpoint, m.message) == (endpoint, message)),
            default=0,
        )

    def supersede(self, new: Modelled) -> None:
        """For `latest`: what is older and waits has come to its end."""
        for other in self.model.values() if self.orderings[new.endpoint] == "latest" else ():
            same = (other.endpoint, other.message) == (new.endpoint, new.message)
            if same and other.place == "waiting" and other.stamp < new.stamp:
                other.place, other.in_chain = "ended", False

    @rule(endpoint=st.sampled_from(ENDPOINTS), count=st.integers(1, 8))
    def claim(self, endpoint: str, count: int) -> None:
        room = self.room(endpoint)
        claim = self.world.claim(endpoint, count)
        self.take_claim(endpoint, claim, min(room, count))
        if len(claim.callbacks) < min(room, count):
            left = self.claimable(endpoint)
            alone = self.suspects(endpoint, "leased", "waiting") > 0
            assert alone or not left, "a claim left room although something was due"

    def room(self, endpoint: str) -> int:
        """How many callbacks the window and the breaker allow."""
        return min(self.windows[endpoint] - self.count(endpoint, "leased"), self.allowed(endpoint))

    def take_claim(self, endpoint: str, claim: Claim, room: int) -> None:
        """Checks what was leased to a worker."""
        now, breaker = self.world.now, self.breakers[endpoint]
        self.find_expired(endpoint)
        given = [one.event_id for one in claim.callbacks]
        assert len(given) <= max(0, room)
        for one in claim.callbacks:
            modelled = self.model[claim.workspace, one.event_id]
            assert ("waiting", modelled.attempts + 1) == (modelled.place, one.attempt)
            assert modelled.due <= now < modelled.expires
            assert not modelled.in_chain or self.heads(endpoint)[modelled.message] == one.event_id
            modelled.place, modelled.claim = "leased", one.claim
            newer = self.orderings[endpoint] == "latest" and modelled.stamp < self.newest(
                endpoint, modelled.message
            )
            assert not newer, "`latest`: an older one went out after a newer one was here"
            self.hands.append((endpoint, one))
        self.keep_suspects_alone(endpoint)
        if breaker.pause and given:
            breaker.pause, breaker.probe = now + LEASE_MS, (given[0], claim.callbacks[0].claim)
        if claim.more:
            self.take_hints([endpoint_id(endpoint)])

    def suspects(self, endpoint: str, *places: str) -> int:
        """How many callbacks there are whose worker died with them twice."""
        return sum(m.endpoint == endpoint and m.suspect and m.place in places for m in self.model.values())

    def keep_suspects_alone(self, endpoint: str) -> None:
        """Nothing is in flight beside a suspect; where claim met one, the window starts over at one."""
        if self.suspects(endpoint, "leased"):
            assert 1 == self.count(endpoint, "leased")
        window = int(self.world.call("hget", self.world.keys.endpoint(endpoint_id(endpoint)), "window") or 2)
        if self.suspects(endpoint, "leased", "waiting") and window == 1:
            self.windows[endpoint] = 1
        assert self.windows[endpoint] == window

    @precondition(lambda self: self.hints)
    @rule(data=st.data(), fate=st.sampled_from(["served", "served", "repeated", "lost"]))
    def hint(self, data: st.DataObject, fate: str) -> None:
        endpoint = data.draw(st.sampled_from(self.hints))
        if fate != "repeated":
            self.hints.remove(endpoint)
        if fate != "lost":
            self.claim(next(name for name in ENDPOINTS if endpoint_id(name) == endpoint), 8)

    @precondition(lambda self: self.hands)
    @rule(
        data=st.data(),
        results=st.lists(RESULTS, min_size=1, max_size=4),
        end=st.sampled_from(["settled", "settled", "settled", "reply lost", "worker died"]),
        claim_next=st.integers(0, 3),
    )
    def settle(self, data: st.DataObject, results: list[Result], end: str, claim_next: int) -> None:
        for result in results[: len(self.hands)]:
            hand = data.draw(st.sampled_from(self.hands))
            if end != "worker died":
                self.record(hand, result, claim_next)
            if end != "reply lost":  # else it is sent again
                self.hands.remove(hand)

    @rule(endpoint=st.sampled_from(ENDPOINTS), results=st.lists(RESULTS, min_size=4, max_size=4))
    def turn(self, endpoint: str, results: list[Result]) -> None:
        """A worker's turn as it mostly goes: what is claimed is settled."""
        before = len(self.hands)
        self.claim(endpoint, len(results))
        for hand, result in zip(self.hands[before:], results, strict=False):
            self.record(hand, result)
        del self.hands[before:]

    @rule(
        endpoint=st.sampled_from(ENDPOINTS),
        times=st.sampled_from([1, 2, 2]),
        delay=st.sampled_from([0, 1, 1000]),
    )
    def workers_die(self, endpoint: str, times: int, delay: int) -> None:
        """Each with what it claimed; the next worker that wakes records it."""
        for _ in range(times):
            self.claim(endpoint, 8)
            self.hands.clear()
            self.world.now += LEASE_MS
            self.wake()
            for hand in self.hands:
                self.record(hand, (Retry(delay), EndpointHealth.NONE, 0))
            self.hands.clear()

    def record(self, hand: tuple[str, Claimed | Lost], result: Result, claim_next: int = 0) -> None:
        """Settles one, and checks whether it counted, and what was claimed with it."""
        endpoint, one = hand
        outcome, bad, retry_after_ms = result
        if isinstance(one, Lost):
            retry = outcome if isinstance(outcome, Retry) else Retry(0)
            outcome, bad = (Failed() if one.attempt >= 5 else retry), EndpointHealth.NONE
        health = (
            EndpointHealth.UP
            if isinstance(outcome, Delivered)
            else EndpointHealth.NONE
            if isinstance(outcome, Released)
            else bad
        )
        retry_after_ms = retry_after_ms if health is EndpointHealth.DOWN else 0
        modelled = self.model[EndpointName.parse(endpoint).workspace, one.event_id]
        valid = modelled.holds(one.claim)
        losses = one.lost_before + 1 if isinstance(one, Lost) else 0
        error = None if isinstance(outcome, Delivered) else "worker_lost" if losses else "http_500"
        attempt = None if isinstance(outcome, Released) else (self.world.now, error)
        more, counted = self.world.settle(
            one.event_id,
            one.claim,
            outcome,
            endpoint=endpoint,
            error=error,
            health=health,
            retry_after_ms=retry_after_ms,
            losses=losses,
            claim_next=claim_next,
        )
        assert (valid or modelled.knows(one.claim, attempt)) == counted
        if valid:
            modelled.recorded = attempt or modelled.recorded
            self.windows[endpoint] = MOVES.get(health, int)(self.windows[endpoint])
            breaker = self.breakers[endpoint]
            probe = breaker.pause > 0 and breaker.probe == (one.event_id, one.claim)
            breaker.learn(health, retry_after_ms, self.world.now, probe=probe)
            self.apply(modelled, outcome, losses)
        if more:
            self.take_hints([endpoint_id(endpoint)])
        if claim := self.world.settled.claim:
            self.take_claim(endpoint, claim, min(self.room(endpoint), claim_next))

    def apply(self, modelled: Modelled, outcome: Outcome, losses: int) -> None:
        """What a counted outcome changes."""
        modelled.attempts += not isinstance(outcome, Released)
        ordering = self.orderings[modelled.endpoint]
        newer = ordering == "latest" and modelled.stamp < self.newest(modelled.endpoint, modelled.message)
        match outcome:
            case Retry(delay_ms) | Released(delay_ms) if (
                self.world.now + delay_ms < modelled.expires and not newer
            ):
                modelled.place, modelled.due = "waiting", self.world.now + delay_ms
                modelled.suspect |= losses > 1
                modelled.in_chain &= (
                    losses > 0 or isinstance(outcome, Released) or ordering != "first_attempt"
                )
            case _:
                modelled.place = "ended"
                modelled.in_chain = False

    @rule(data=st.data(), delay=st.sampled_from([0, 0, 1_000]))
    def replay(self, data: st.DataObject, delay: int) -> None:
        """An operator sends one again, from whatever state it is in."""
        if not self.model:
            return
        key = data.draw(st.sampled_from(list(self.model)))
        modelled = self.model[key]
        latest = self.orderings[modelled.endpoint] == "latest"
        newer = latest and modelled.stamp < self.newest(modelled.endpoint, modelled.message)
        word = self.world.run(self.world.ledger.replay(*key, in_ms=delay, ttl_ms=60_000))
        if modelled.place != "ended":
            assert "not_ended" == word
        elif word == "no_body":
            assert newer, "superseded at once, and so never had one"
        elif newer:
            assert "superseded" == word
        elif latest and self.is_under_way(modelled):
            assert "busy" == word
        else:
            assert "replayed" == word
            modelled.place, modelled.in_chain, modelled.suspect = "waiting", latest, False
            modelled.attempts, modelled.due = 0, self.world.now + delay
            modelled.expires = self.world.now + delay + 60_000

    def is_under_way(self, one: Modelled) -> bool:
        """Whether another callback of its message to its endpoint has not ended."""
        return any(
            m.place != "ended" and (m.endpoint, m.message) == (one.endpoint, one.message)
            for m in self.model.values()
        )

    @rule()
    def wake(self) -> None:
        woken = self.world.run(self.world.ledger.wake())
        hints, lost = [hint.endpoint for hint in woken.hints], woken.lost
        self.take_hints(hints)
        self.hands += [(one.endpoint_name, one) for one in lost]

    @rule()
    def expire(self) -> None:
        self.world.run(self.world.ledger.expire())
        for endpoint in ENDPOINTS:
            self.find_expired(endpoint)
        now = self.world.now
        assert not [m for m in self.model.values() if m.place == "waiting" and m.expires <= now]

    @rule(ms=st.sampled_from([1, 400, 1_000, HINT_MS, 15_000, LEASE_MS, 61_000]))
    def wait(self, ms: int) -> None:
        self.world.now += ms

    @rule(endpoint=st.sampled_from(ENDPOINTS), going=st.sampled_from([True, True, True, False]))
    def operator(self, endpoint: str, going: bool) -> None:
        there = any(modelled.endpoint == endpoint for modelled in self.model.values())
        word = self.world.run(self.world.ledger.stop(endpoint_id(endpoint), resume=going))
        changed = Stopped.CHANGED if self.breakers[endpoint].stopped == going else Stopped.SAME
        assert word is (changed if there else Stopped.UNKNOWN)
        self.breakers[endpoint].stopped = there and not going

    @rule(endpoint=st.sampled_from(ENDPOINTS), repeat=st.booleans())
    def retry(self, endpoint: str, repeat: bool) -> None:
        """What waits for its next attempt is due now, and a pause has ended, unless its probe is under way."""
        id_, now, breaker = endpoint_id(endpoint), self.world.now, self.breakers[endpoint]
        lane, workspace = self.world.keys.lane(id_), EndpointName.parse(endpoint).workspace
        later = self.world.call("zrangebyscore", lane, f"({now}", "+inf", withscores=True)
        asked = [(event_id.decode(), due) for event_id, due in later]
        done = self.world.run(self.world.ledger.retry(id_, asked))
        if repeat and done:
            assert done.stopped == self.world.run(self.world.ledger.retry(id_, asked)).stopped
        if done is None or breaker.stopped:
            assert done is None or done.stopped
            assert bool(done) == any(modelled.endpoint == endpoint for modelled in self.model.values())
            return
        probe = self.model.get((workspace, breaker.probe[0])) if breaker.probe else None
        is_probing = bool(probe and (probe.place, probe.claim) == ("leased", breaker.probe[1]))
        assert (breaker.pause > now and not is_probing) == bool(done.pause_ended_ms)
        if done.pause_ended_ms:
            breaker.pause = now
        hastened = [e for e, _ in asked if self.world.event(e, workspace).state is State.RETRYING]
        assert len(hastened) == done.made_due
        for event_id in hastened:
            self.model[workspace, event_id].due = now

    def allowed(self, endpoint: str) -> int:
        """How many the breaker and the operator let go now."""
        breaker = self.breakers[endpoint]
        if breaker.stopped or breaker.pause > self.world.now:
            return 0
        return 1 if breaker.pause else 1000

    def take_hints(self, hints: list[str]) -> None:
        self.hints += [endpoint for endpoint in hints if endpoint not in self.hints]

    def find_expired(self, endpoint: str) -> None:
        """The model learns of endings by expiry from the ledger, and checks that they were due."""
        for (workspace, event_id), modelled in self.model.items():
            over = modelled.place == "waiting" and modelled.expires <= self.world.now
            if over and modelled.endpoint == endpoint and self.world.event(event_id, workspace).ended:
                modelled.place, modelled.in_chain = "ended", False

    def count(self, endpoint: str, place: str) -> int:
        return sum(m.endpoint == endpoint and m.place == place for m in self.model.values())

    def heads(self, endpoint: str) -> dict[str, str]:
        """The first in each chain; the model keeps the order of acceptance."""
        heads: dict[str, str] = {}
        for (_, event_id), modelled in self.model.items():
            if modelled.endpoint == endpoint and modelled.in_chain:
                heads.setdefault(modelled.message, event_id)
        return heads

    def in_lane(self, endpoint: str) -> dict[str, Modelled]:
        """What may go next: waiting, and first in its chain or past its first attempt."""
        heads = self.heads(endpoint)
        return {
            event_id: modelled
            for (_, event_id), modelled in self.model.items()
            if modelled.endpoint == endpoint
            and modelled.place == "waiting"
            and (not modelled.in_chain or heads[modelled.message] == event_id)
        }

    def claimable(self, endpoint: str) -> list[str]:
        """What may go now; one that has become head of its chain is due at once."""
        now = self.world.now
        return [event_id for event_id, modelled in self.in_lane(endpoint).items() if modelled.due <= now]

    @invariant()
    def ledger_agrees(self) -> None:
        """Every callback is where the model has it, and in no other place."""
        call, keys = self.world.call, self.world.keys
        for endpoint in ENDPOINTS:
            id_ = endpoint_id(endpoint)
            lane = {member.decode() for member in call("zrange", keys.lane(id_), 0, -1)}
            leased = {member.decode() for member in call("zrange", keys.leased(id_), 0, -1)}
            assert set(self.in_lane(endpoint)) == lane
            assert {
                e for (_, e), m in self.model.items() if m.endpoint == endpoint and m.place == "leased"
            } == leased
            assert len(leased) <= MAX_CONCURRENCY
            waiting = int(call("hget", keys.endpoint(id_), "waiting") or 0)
            assert self.count(endpoint, "waiting") + self.count(endpoint, "leased") == waiting
        pending = {f"{w}:{e}" for (w, e), m in self.model.items() if m.place != "ended"}
        assert pending == {member.decode() for member in call("zrange", keys.expiries, 0, -1)}

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What has something in its lane or leased is in `schedule`, soon enough for a lost hint to cost 5 s."""
        call, keys, now = self.world.call, self.world.keys, self.world.now
        for endpoint in ENDPOINTS:
            id_ = endpoint_id(endpoint)
            workspace = EndpointName.parse(endpoint).workspace
            at = call("zscore", keys.schedule_of(workspace), id_)
            first = call("zscore", keys.schedule, workspace)
            assert at is None or first <= max(at, now)
            leased, breaker = self.count(endpoint, "leased"), self.breakers[endpoint]
            room = leased < self.windows[endpoint] and not breaker.stopped
            assert (leased > 0 or (room and bool(self.in_lane(endpoint)))) == (at is not None)
            if self.claimable(endpoint) and room:
                assert at is not None
                assert at <= max(now + HINT_MS, breaker.pause)

    def teardown(self) -> None:
        """With workers that deliver, everything comes to its end and leaves nothing behind."""
        self.hands.clear()
        self.hints.clear()
        for endpoint in ENDPOINTS:
            self.operator(endpoint, going=True)
        for _ in range(12 + 3 * len(self.model)):
            if not self.world.call("zcard", self.world.keys.expiries):
                break
            self.world.now += LEASE_MS
            self.wake()
            for endpoint, one in self.hands:
                self.world.settle(
                    one.event_id, one.claim, Retry(0), endpoint=endpoint, error="worker_lost", losses=1
                )
            self.hands.clear()
            self.world.deliver_all(*ENDPOINTS)
        call, keys = self.world.call, self.world.keys
        assert [] == call("keys", keys.schedule_of("*"))
        assert 0 == call("zcard", keys.expiries)
        ended = [self.world.event(event_id, workspace).ended for workspace, event_id in self.model]
        assert all(ended)
        assert [] == leaked_keys(self.world)
        self.world.close()
