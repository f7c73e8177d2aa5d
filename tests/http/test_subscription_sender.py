"""Whose secret signs a callback, by real POSTs to a real server."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.subscription import Secret, Subscription
from tests.http.raw_server import answer, answers, serving
from tests.http.test_sender import NEW, NOW_MS, callback, sender, workspace


@pytest.mark.parametrize(
    ("name", "accepted_ms", "is_sent"),
    [("crm", NOW_MS - 1, False), ("crm", NOW_MS, True), ("crm", 0, True), ("", 1, True), ("gone", 0, False)],
    ids=["before it was removed", "after it was added again", "unknown", "the default one", "removed"],
)
def test_a_name_that_is_used_again(name: str, accepted_ms: int, is_sent: bool) -> None:
    """What waited for a subscription that was removed never goes out with the secret of a later one of its name."""

    async def work() -> tuple[Attempt, int]:
        crm = Subscription("crm", "zeckta", "https://crm.example/", (Secret(NEW, 1),), NOW_MS)
        acme = dataclasses.replace(workspace(), subscriptions={"crm": crm})
        async with serving(answers(answer(200))) as server, sender() as ours:
            one = replace(
                callback(server.url), event_id=f"e-1.{name}" if name else "e-1", first_accepted_ms=accepted_ms
            )
            return await ours.send(one, acme, NOW_MS), len(server.received)

    attempt, requests = asyncio.run(work())
    assert (requests, attempt.error) == ((1, None) if is_sent else (0, "subscription_removed"))
