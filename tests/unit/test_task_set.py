"""Background tasks that nothing waits for."""

import asyncio

from structlog.testing import capture_logs

from dispatcher.worker.task_set import TaskSet


async def breaks() -> None:
    """A task that meets a bug."""
    raise KeyError("bug")


async def hangs() -> None:
    """A task that does not end by itself."""
    await asyncio.Event().wait()


def test_an_error_is_logged() -> None:
    """An error that ends a task is logged as ours are, with the name of what broke; the others go on."""

    async def run() -> list[str]:
        unseen: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
        tasks = TaskSet()
        tasks.start(breaks())
        await tasks.ended()
        return unseen

    with capture_logs() as logged:
        unseen = asyncio.run(run())
    assert [("task.internal_error", "breaks", KeyError)] == [
        (line["event"], line["task"], type(line["exc_info"])) for line in logged
    ]
    assert [] == unseen


def test_a_cancelled_task_is_no_error() -> None:
    """What is cancelled when the loop ends is not logged."""

    async def run() -> None:
        TaskSet().start(hangs())
        await asyncio.sleep(0)

    with capture_logs() as logged:
        asyncio.run(run())
    assert [] == logged
