"""A long outage, in simulated time: an endpoint is down for a day, and comes back to what waits."""

from collections import Counter

import pytest

from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import Policy, decide, health_of
from dispatcher.rules.outcomes import Attempt
from dispatcher.store.arguments import ToAccept
from dispatcher.store.entry import read_entry
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Settlement, ToSettle
from tests.world import TOKEN, World, callback

ENDPOINT = "acme https://a.example:443"
HOUR_MS = 3_600_000
POST_MS = 50


class Endpoint:
    """The receiver and its one worker: takes what is hinted, claims, and settles after the time of a POST."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.down = True
        self.posts: list[tuple[int, str]] = []
        self.most_in_flight = 0

    def attend(self) -> None:
        """Does what is to be done now."""
        while self.world.run(self.world.ledger.expire()) == 500:
            pass
        if self.world.run(self.world.ledger.wake()).hints:
            self.serve()

    def serve(self) -> None:
        """A turn without end."""
        more = True
        while more:
            claim = self.world.claim(ENDPOINT)
            leased = self.world.call("zcard", self.world.keys.leased(endpoint_id(ENDPOINT)))
            self.most_in_flight = max(self.most_in_flight, leased)
            self.posts += [(self.world.now, one.event_id) for one in claim.callbacks]
            self.world.now += claim.wait_ms if not claim.callbacks else POST_MS
            more = claim.more or claim.wait_ms > 0
            if claim.callbacks:
                settlements = [self._settlement(one) for one in claim.callbacks]
                asked = ToSettle(endpoint_id(ENDPOINT), settlements)
                [settled] = self.world.run(self.world.ledger.settle([asked]))
                more |= settled.more

    def sleep(self, until: int) -> None:
        """Attends to whatever is due until then."""
        while (due := self._next()) < until:
            self.world.now = max(self.world.now, due)
            self.attend()
        self.world.now = max(self.world.now, until)

    def _next(self) -> int:
        keys = self.world.keys
        heads = [
            self.world.call("zrange", key, 0, 0, withscores=True)
            for key in (keys.schedule_of("acme"), keys.expiries)
        ]
        return min((int(head[0][1]) for head in heads if head), default=2**53)

    def _settlement(self, one: Claimed) -> Settlement:
        attempt = Attempt(
            self.world.now, POST_MS, 503 if self.down else 200, "http_503" if self.down else None
        )
        outcome = decide(
            attempt, one.attempt, now_ms=self.world.now, expires_ms=one.expires_ms, policy=Policy(), rng=0.5
        )
        return Settlement(one.event_id, one.claim, outcome, attempt, health_of(attempt))


def enqueue(world: World, prefix: str, count: int, ttl_ms: int) -> list[str]:
    """Accepts so many; their eventIds."""
    made = [
        callback(f"{prefix}{n}", message=f"{prefix}{n}", ttl_ms=ttl_ms, timestamp_ms=world.now)
        for n in range(count)
    ]
    for first in range(0, count, 500):
        batch = [("1-1", one) for one in made[first : first + 500]]
        world.run(world.ledger.accept(TOKEN, {}, (), ToAccept(batch)))
    return [one.event_id for one in made]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("waiting", "rate"), [(50_000, 0), (4_000, 200)])
def test_a_day_down(world: World, waiting: int, rate: int) -> None:
    """Probes find the endpoint again; fresh ones are not stuck behind 50,000; what expired did so on time; no limit is passed."""
    if rate:
        world.call("hset", world.keys.workspace("acme"), mapping={"rate_per_second": rate, "revision": "r"})
    receiver = Endpoint(world)
    began = world.now
    short_lived = waiting // 4
    short = enqueue(world, "s", short_lived, 6 * HOUR_MS)
    long = enqueue(world, "l", waiting - short_lived, 48 * HOUR_MS)
    receiver.serve()
    receiver.sleep(began + 24 * HOUR_MS)

    counts: Counter[str] = Counter()
    for event_id in short:
        entry = read_entry(world.call("get", world.keys.event("acme", event_id)))
        counts[entry.state.value] += 1
        assert abs((entry.ended_ms or 0) - began - 6 * HOUR_MS) <= POST_MS
    assert {"expired": short_lived} == counts
    day_of_posts = len(receiver.posts)
    assert 100 <= day_of_posts <= 10 + 2 + 24 * 6 + 20, "one probe for each pause, which grows to ten minutes"

    receiver.down = False
    came_back = world.now
    fresh = enqueue(world, "f", 10, 48 * HOUR_MS)
    receiver.sleep(came_back + 40 * 60_000)

    posts = receiver.posts[day_of_posts:]
    states = Counter(world.event(event_id).state.value for event_id in [*long[:2000], *fresh])
    assert set(states) <= {"delivered", "failed"}
    assert states["failed"] <= 20, "attempts were used up by probes alone"
    assert 0 == world.call("zcard", world.keys.expiries)
    first_of_them = [event_id for _, event_id in posts[:200]]
    assert set(fresh) <= set(first_of_them), "they wait for the window, not for the backlog"
    assert receiver.most_in_flight <= 20
    if rate:
        seconds = Counter((at - came_back) // 1000 for at, _ in posts)
        assert max(seconds.values()) <= rate + rate // 10
