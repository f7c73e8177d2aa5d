"""Sentences as pages show them: what of them customers read, whatever somebody typed into them."""

import pytest

from tasks.console.words import MOST_PROSE, prose, without_commands


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("stopped: `dispatcher endpoint stop --resume` resumes it", "stopped"),
        ("it waits (`dispatcher event show` says why); then it is sent", "it waits ; then it is sent"),
        ("the body `{}` is gone, see `dispatcher event list`", "the body `{}` is gone"),
        ("too slow (DISPATCHER_MAX_ATTEMPTS is 3), and so on", "too slow, and so on"),
        ("(as it is) within DISPATCHER_REQUEST_TIMEOUT_SECONDS", "(as it is) within the time-out"),
        ("see DISPATCHER_PROXY_URL", "see a setting"),
        ("`dispatcher", "`dispatcher"),
    ],
)
def test_customers_read_neither_commands_nor_settings(text: str, shown: str) -> None:
    assert shown == without_commands(text)


def test_a_sentence_takes_linear_time_whatever_it_quotes() -> None:
    """Patterns that try again from each character would take minutes for any of these."""
    for some in ("A", "`", "`dispatcher ", " (", "DISPATCHER_", " (DISPATCHER_", "; ", "00:00:00.1", "1%2"):
        for text in (some * 100_000, f" ({some * 100_000}", f"{some * 100_000}`dispatcher x`"):
            without_commands(text)
            prose(text)


def test_a_very_long_sentence_is_cut() -> None:
    assert MOST_PROSE + 1 == len(prose("A" * 1_000_000))
    assert prose("A" * 1_000_000) == prose(without_commands("A" * 1_000_000))
