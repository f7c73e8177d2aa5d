"""The ledger's state machine on fakeredis: no server needed."""

import fakeredis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.ledger_machine import LedgerMachine


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
