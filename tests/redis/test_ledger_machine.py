"""The ledger's state machine on a real server."""

import os
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from dispatcher.store.connection import connect_async
from dispatcher.store.wire import Wire
from tests.ledger_machine import LedgerMachine

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "30"))


def test_ledger_machine(redis_url: str) -> None:
    """Whatever happens in whatever order, the ledger agrees with its model and nothing is lost."""

    class OnRealServer(LedgerMachine):
        def make_client(self) -> Any:
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            return connect_async(redis_url)

        def make_wire(self, client: Any) -> Wire:
            return Wire(client)

    run_state_machine_as_test(
        OnRealServer,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=120,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
