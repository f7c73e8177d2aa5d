"""When all workers publish attempts, by what their heartbeats say; and what is published."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.console.live import State
from tasks.console.pages.live import shown_state
from tasks.watching import Heard, _read, all_publish

NOW = 1_800_000_000_000


def beat(ms: int, **fields: Any) -> dict[str, Any]:
    """A heartbeat, so many ms after the first ones were read."""
    return {"signedMs": NOW + ms} | fields


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({}, True),
        ({"a": beat(-200, watched=True)}, False),
        ({"a": beat(800, watched=False)}, False),
        ({"a": beat(800, watched=True)}, True),
        ({"a": beat(800, watched=True), "b": beat(-300, watched=True)}, False),
        ({"a": beat(800, watched=True), "b": beat(700, watched=True)}, True),
        ({"a": beat(800, watched=True), "b": beat(-4000, watched=False)}, True),
        ({"a": beat(800, watched=True), "b": beat(3_600_000, watched=False)}, True),
        ({"a": beat(800, watched=True), "new": beat(700, watched=False)}, False),
        ({"a": beat(800, watched=True), "new": beat(700, watched=True)}, True),
        ({"a": beat(800)}, True),
        ({"a": beat(-200)}, False),
    ],
    ids=[
        "no worker", "the heartbeat of before", "it does not know yet", "it publishes", "another one sent none since",
        "both publish", "the other one is dead", "the other one is of before the clock went back",
        "a new one does not know yet", "a new one publishes",
        "an older version has looked", "an older version has not looked",
    ],
)  # fmt: skip
def test_all_publish(later: dict[str, Any], expected: bool) -> None:
    """Each live worker has to say so in a heartbeat that it sent after the first reading."""
    first = {"a": beat(-200, watched=True), "b": beat(-300, watched=True)}
    assert expected is all_publish(later, first, NOW + 1000)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'[{"at":"\xff"}]', b"[" * 100_000, b'[{"at":"x"}]'])
def test_what_is_no_list_of_attempts(raw: bytes) -> None:
    """Any client of Redis can publish: it is left out, and said."""
    found = _read(raw, is_live=True)
    assert (True, []) == (found.is_live, found.attempts)
    assert found.problem


def test_too_much_at_once() -> None:
    assert Heard(False, problem="2,097,153 bytes at once") == _read(
        b" " * (2 * 1024 * 1024 + 1), is_live=False
    )


def test_a_customer_is_told_nothing_of_redis_and_workers() -> None:
    """The portal's live page says whether it is live, and not what is wrong with us."""
    script = (Path(__file__).parents[2] / "tasks" / "console" / "static" / "console.js").read_text()
    words = dict(re.findall(r'^  (\w+): "([^"]+)",', script, re.M))
    told = {state: words[shown_state(state, in_portal=True)] for state in get_args(State)}
    assert ["live"] == [state for state, text in told.items() if text.startswith("Live:")]
    assert not [text for text in told.values() if re.search("Redis|worker|log", text)]
    assert all(words[shown_state(state, in_portal=False)] for state in get_args(State))
