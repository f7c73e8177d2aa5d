"""`endpoint retry`: what is paused is probed now, what waits for its next attempt is due now, and nothing else changes."""

import pytest

from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Failed, Outcome, Retry
from dispatcher.store.endpoints import ANSWER_BYTES, Endpoint
from dispatcher.store.keys import endpoint_id
from dispatcher.store.ledger import RETRIED_AT_ONCE
from dispatcher.store.replies import Hint, Retried, Settlement, ToSettle
from tests.world import World, callback

A = "acme https://a.example:443"
LATER_MS = 240_000


def later(world: World) -> list[tuple[str, float]]:
    """What the command reads before: eventIds and due times of what is not due."""
    found = world.call(
        "zrangebyscore", world.keys.lane(endpoint_id(A)), f"({world.now}", "+inf", withscores=True
    )
    return [(event_id.decode(), due) for event_id, due in found]


def retry(world: World) -> Retried | None:
    return world.run(world.ledger.retry(endpoint_id(A), later(world)))


def settle(
    world: World, outcome: Outcome, attempt: Attempt, health: EndpointHealth = EndpointHealth.DOWN
) -> str:
    """One claim, and what became of it; its eventId."""
    (one, *_) = world.claim(count=1).callbacks
    done = Settlement(one.event_id, one.claim, outcome, attempt, health)
    [world.settled] = world.run(world.ledger.settle([ToSettle(endpoint_id(A), [done])]))  # type: ignore[list-item]
    return one.event_id


def fail(
    world: World,
    count: int,
    error: str = "http_503",
    delay_ms: int = LATER_MS,
    health: EndpointHealth = EndpointHealth.DOWN,
) -> None:
    for _ in range(count):
        settle(world, Retry(delay_ms), Attempt(world.now, 5, None, error), health)


def accept(world: World, count: int) -> None:
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(count)])


def shown(world: World) -> Endpoint:
    [found] = world.run(world.endpoints.with_answers(world.run(world.endpoints.all())))
    return found


def test_what_is_paused_is_probed_now(world: World) -> None:
    """One callback goes out at once, and is the probe: if it fails the pause is twice as long, if not the others follow."""
    accept(world, 30)
    fail(world, 10)
    assert [] == world.claim().callbacks
    assert world.settled
    until = world.settled.paused_until_ms
    done = retry(world)
    assert Retried(pause_ended_ms=until, made_due=10) == done
    assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints, (
        "a worker is told at its next look"
    )
    fail(world, 1)
    assert ("opened", world.now + 20_000) == (world.settled.breaker, world.settled.paused_until_ms)
    retry(world)
    (probe,) = world.claim().callbacks
    assert [] == world.claim().callbacks, "one probe at a time"
    world.settle(probe.event_id, probe.claim, health=EndpointHealth.UP)
    assert "closed" == world.settled.breaker
    assert 29 == len(world.deliver_all())


def test_a_probe_under_way_is_left_alone(world: World) -> None:
    """While one callback tries the endpoint a retry starts no second one, and its answer still decides."""
    accept(world, 12)
    fail(world, 10)
    retry(world)
    (probe,) = world.claim().callbacks
    done = retry(world)
    assert done
    assert (0, world.now + world.ledger.options.lease_ms) == (done.pause_ended_ms, done.probe_ends_ms)
    assert [] == world.claim().callbacks
    world.settle(probe.event_id, probe.claim, Retry(LATER_MS), error="http_503", health=EndpointHealth.DOWN)
    assert world.settled
    assert ("opened", world.now + 20_000) == (world.settled.breaker, world.settled.paused_until_ms)
    retry(world)
    world.deliver_all()


def test_what_waits_for_its_attempt_is_due_in_order(world: World) -> None:
    """It goes out in the order in which it would have, also where it is more than one call makes due; attempts stay counted."""
    count = RETRIED_AT_ONCE + 3
    accept(world, count)
    world.call("hset", world.keys.endpoint(endpoint_id(A)), "window", 20)
    for number in range(count):
        fail(world, 1, "http_404", LATER_MS + number, EndpointHealth.ANSWERED)
    order = [event_id for event_id, _ in later(world)]
    assert (count, []) == (len(order), world.claim().callbacks)
    assert Retried(made_due=count) == retry(world)
    assert order == [
        event_id.decode() for event_id in world.call("zrange", world.keys.lane(endpoint_id(A)), 0, -1)
    ]
    assert shown(world).oldest_due_ms in (world.now - 1, world.now)
    (one, *_) = claimed = world.claim().callbacks
    assert 2 == one.attempt
    assert len(claimed) <= 20, "the window holds"
    for one in claimed:
        world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
    world.deliver_all()


def test_what_was_attempted_meanwhile_is_left_alone(world: World) -> None:
    """What fails between the look and the retry waits as long as any: it does not use up its attempts."""
    accept(world, 1)
    fail(world, 1, "http_404", health=EndpointHealth.ANSWERED)
    before = later(world)
    world.now += LATER_MS
    fail(world, 1, "http_404", health=EndpointHealth.ANSWERED)
    assert Retried() == world.run(world.ledger.retry(endpoint_id(A), before))
    assert [("e0", world.now + LATER_MS)] == later(world)
    world.now += LATER_MS
    world.deliver_all()


def test_replays_keep_their_times(world: World) -> None:
    """What is replayed is spread over time on purpose, and stays so."""
    accept(world, 2)
    settle(world, Failed(), Attempt(world.now, 5, 410, "http_410"), EndpointHealth.ANSWERED)
    fail(world, 1, "http_404", health=EndpointHealth.ANSWERED)
    assert "replayed" == world.run(world.ledger.replay("acme", "e0", in_ms=60_000))
    assert Retried(made_due=1) == retry(world)
    assert ["e0"] == [event_id for event_id, _ in later(world)]
    world.now += 60_000
    world.deliver_all()


def test_order_of_a_message(world: World) -> None:
    """In the order `strict` a message's later status still waits for the end of the earlier one."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "strict")
    world.accept(callback("e1"), callback("e2"))
    fail(world, 1, "http_404", health=EndpointHealth.ANSWERED)
    assert Retried(made_due=1) == retry(world)
    assert ["e1"] == [one.event_id for one in world.claim().callbacks]
    world.now += world.ledger.options.lease_ms
    for lost in world.run(world.ledger.wake()).lost:
        world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    assert ["e1", "e2"] == world.deliver_all()


def test_rate_holds(world: World) -> None:
    """What is due now goes out at the workspace's rate all the same."""
    world.call("hset", world.keys.workspace("acme"), "rate_per_second", 1)
    accept(world, 3)
    for _ in range(3):
        fail(world, 1, "http_404", health=EndpointHealth.ANSWERED)
        world.now += 1000
    assert Retried(made_due=3) == retry(world)
    assert 1 == len(claim := world.claim().callbacks)
    world.settle(claim[0].event_id, claim[0].claim, health=EndpointHealth.UP)
    assert [] == world.claim().callbacks
    for _ in range(2):
        world.now += 1000
        world.deliver_all()


def test_stopped_and_unknown(world: World) -> None:
    """What the operator stopped stays so; of what is not there nothing is made."""
    assert None is world.run(world.ledger.retry(endpoint_id(A)))
    assert not world.call("exists", world.keys.endpoint(endpoint_id(A)))
    accept(world, 1)
    fail(world, 1)
    world.run(world.ledger.stop(endpoint_id(A)))
    assert Retried(stopped=True) == retry(world)
    assert 1 == len(later(world))
    world.run(world.ledger.stop(endpoint_id(A), resume=True))
    assert Retried(made_due=1) == retry(world)
    assert Retried() == retry(world), "said again it changes nothing"
    world.deliver_all()


@pytest.mark.parametrize(
    ("attempt", "status", "answer"),
    [
        (Attempt(0, 5, 500, "http_500", answer=b"database is gone"), 500, "database is gone"),
        (Attempt(0, 5, None, "timeout"), None, None),
        (
            Attempt(0, 5, None, "blocked_address", answer=b"10.0.0.1 is not a public address"),
            None,
            "10.0.0.1 is not a public address",
        ),
        (Attempt(0, 5, 404, "http_404", answer=b"x" * 300), 404, "x" * ANSWER_BYTES),
        (Attempt(0, 5, 502, "http_502", answer=b"\xff\x1b[2J"), 502, "\ufffd\x1b[2J"),
    ],
)
def test_last_failure(world: World, attempt: Attempt, status: int | None, answer: str | None) -> None:
    """An endpoint tells what its last failed attempt brought, and when; a success changes nothing of it."""
    accept(world, 2)
    assert (None, None) == (shown(world).last_error, shown(world).last_failed_ms)
    event_id = settle(world, Retry(0), attempt)
    found = shown(world)
    assert (attempt.error, status, answer) == (found.last_error, found.last_status, found.last_answer)
    assert (world.now, event_id) == (found.last_failed_ms, found.last_event_id)
    world.now += 1000
    settle(world, Delivered(), Attempt(world.now, 5, 200), EndpointHealth.UP)
    assert world.now - 1000 == shown(world).last_failed_ms
    world.deliver_all()


def test_an_older_answer_is_not_shown(world: World) -> None:
    """Where the last failed attempt had no answer, that of an earlier one is not its."""
    accept(world, 1)
    settle(world, Retry(0), Attempt(world.now, 5, 503, "http_503", answer=b"starting"))
    settle(world, Retry(0), Attempt(world.now, 5, None, "timeout"))
    assert ("timeout", None) == (shown(world).last_error, shown(world).last_answer)
    world.deliver_all()


def test_a_workers_death_is_not_the_endpoints(world: World) -> None:
    """An attempt whose worker died leaves the last failure as it was."""
    accept(world, 1)
    settle(world, Retry(0), Attempt(world.now, 5, 503, "http_503"))
    assert 1 == len(world.claim().callbacks)
    world.now += world.ledger.options.lease_ms
    [lost] = world.run(world.ledger.wake()).lost
    world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    assert "http_503" == shown(world).last_error
    world.deliver_all()


def test_the_url_that_is_next(world: World) -> None:
    """The URL that a ping tests is that of the callback that goes next, or is in flight."""
    accept(world, 1)
    endpoint = shown(world)
    assert "https://a.example/hooks" == world.run(world.endpoints.next_url(endpoint))
    (one,) = world.claim().callbacks
    assert "https://a.example/hooks" == world.run(world.endpoints.next_url(endpoint))
    world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
    assert None is world.run(world.endpoints.next_url(endpoint))


def test_last_failure_that_is_none(world: World) -> None:
    """What somebody wrote over by hand, or an earlier version did not write, is no last failure."""
    accept(world, 1)
    for raw in ("", "garbage", "x http_500 1 e0", "99999999999999999 http_500 0 e0"):
        world.call("hset", world.keys.endpoint(endpoint_id(A)), "last_failure", raw)
        assert (None, None) == (shown(world).last_error, shown(world).last_failed_ms)
    world.deliver_all()
