"""The ledger's state machine on fakeredis: no server needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import fakeredis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from dispatcher.rules.outcomes import Delivered, EndpointHealth, Retry
from tests.ledger_machine import ENDPOINTS, FIRST_PAUSE_MS, LedgerMachine

A = ENDPOINTS[0]
DAY_MS = 86_400_000


class OnFakeRedis(LedgerMachine):
    """Runs the scripts in fakeredis' Lua."""

    def make_client(self) -> object:
        return fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())


def test_ledger_machine() -> None:
    """Whatever happens in whatever order, the ledger agrees with its model and nothing is lost."""
    run_state_machine_as_test(
        OnFakeRedis,
        settings=settings(max_examples=8, stateful_step_count=60, suppress_health_check=list(HealthCheck)),
    )


@contextmanager
def three_accepted() -> Iterator[OnFakeRedis]:
    """The machine with e1 claimed, e2 and e3 waiting, to one endpoint; in the end the ledger agrees with the model."""
    machine = OnFakeRedis()
    machine.lead(orderings=("first_attempt", "first_attempt"))
    batch = [(f"e{n}", A, message, DAY_MS, "d1", 0) for n, message in enumerate(("m1", "m2", "m2"), 1)]
    machine.accept(batch=batch, room=0)
    machine.claim(endpoint=A, count=1)
    try:
        yield machine
        machine.ledger_agrees()
        machine.nothing_is_forgotten()
    finally:
        machine.teardown()


def test_a_settle_that_is_repeated() -> None:
    """Found by the machine: the repetition of a settle counts, and changes nothing."""
    with three_accepted() as machine:
        [first] = machine.hands
        machine.record(first, (Retry(15_000), EndpointHealth.DOWN, 0))
        before = machine.model["acme", "e1"].due
        machine.record(first, (Retry(0), EndpointHealth.DOWN, 0))  # the same attempt
        assert before == machine.model["acme", "e1"].due
        machine.record(first, (Delivered(), EndpointHealth.UP, 0))  # another one, of a lease that is gone
        assert "waiting" == machine.model["acme", "e1"].place


def test_a_probe_that_fails_after_a_retry_after() -> None:
    """Found by the machine: it is one failure of several, and does not open the breaker."""
    with three_accepted() as machine:
        machine.record(machine.hands.pop(), (Retry(61_000), EndpointHealth.DOWN, 12_000))
        machine.wait(ms=12_000)
        machine.claim(endpoint=A, count=1)
        machine.record(machine.hands.pop(), (Retry(61_000), EndpointHealth.DOWN, 0), claim_next=1)
        assert (2, 0) == (machine.breakers[A].failures, machine.breakers[A].pause)
        [third] = machine.hands
        machine.record(third, (Retry(61_000), EndpointHealth.DOWN, 0))
        assert machine.world.now + FIRST_PAUSE_MS == machine.breakers[A].pause, "the third in a row does"
