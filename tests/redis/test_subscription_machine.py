"""The state machine of subscriptions on a real server."""

import os

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.redis.test_broken_off import BreakingWorld
from tests.subscription_machine import SubscriptionMachine
from tests.world import World

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "25"))


@pytest.mark.timeout(600)
def test_subscription_machine(redis_url: str) -> None:
    """Whatever happens in whatever order, each subscription that wants a status change has one callback of it."""

    class OnRealServer(SubscriptionMachine):
        def make_world(self) -> World:
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            return BreakingWorld(redis_url)

    run_state_machine_as_test(
        OnRealServer,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.generate],  # shrinking what fails takes minutes here
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
