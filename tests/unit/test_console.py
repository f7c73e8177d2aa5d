"""What all commands have in common."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tasks import terminal


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C works, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def _interrupted(losing: int) -> None:
    """Ctrl-C comes, and so many cancellations get lost, as within redis-py on Python 3.11."""
    asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not losing:
                raise
            losing -= 1


@pytest.mark.parametrize("losing", [0, 1, 2])
def test_ctrl_c_ends_a_command(losing: int, ctrl_c: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "CANCEL_AGAIN_SECONDS", 0.02)
    with pytest.raises(KeyboardInterrupt):
        terminal.run(_interrupted(losing))
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


async def _raises() -> None:
    raise LookupError("as it was")


async def _returns() -> str:
    return "as it was"


def test_run_to_the_end() -> None:
    assert "as it was" == terminal.run(_returns())
    with pytest.raises(LookupError, match="as it was"):
        terminal.run(_raises())
