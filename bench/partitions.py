"""What partitions cost on one server: callbacks a second, CPU of worker and Redis, and of an installation that does nothing."""

import time
from collections import defaultdict

from bench.contenders import Contenders, customers, ratio
from bench.report import spread, table
from bench.stack import Stack, running, wait_until

COUNTS = (1, 4, 16, 64, 256)
WORKSPACES = 100
IDLE_WORKERS, IDLE_PARTITIONS, IDLE_SECONDS = 3, 256, 20
SETTLED_SECONDS = 10
"""By then the workers have shared out the partitions."""
FIGURES = {"rate": 0, "worker": 3, "redis": 3, "calls": 1}


def partitions(contenders: Contenders) -> str:
    """Rate and CPU of a callback for numbers of partitions, and the CPU of three workers with nothing to do."""
    found: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for _ in range(contenders.size.rounds):
        for count in COUNTS:
            contenders.progress.start(f"{count} partitions")
            for figure, value in _run(contenders, count).items():
                found[count, figure].append(value)
    rows = []
    for count in COUNTS:
        rows.append([str(count), *(spread(found[count, name], digits) for name, digits in FIGURES.items())])
        rows[-1].append(ratio(found[count, "rate"], found[1, "rate"]))
    head = [f"partitions, {WORKSPACES} workspaces", "callbacks/s", "worker ms each", "Redis ms each"]
    text = table([*head, "Redis calls each", "÷ one partition"], rows)
    return f"{text}\n\n{_idle(contenders)}"


def _run(contenders: Contenders, count: int) -> dict[str, float]:
    with running(PARTITIONS=str(count)) as stack:
        made = customers(stack, contenders.urls(WORKSPACES))
        _all_owned(stack)
        stack.load.burst("w", made, 5 * WORKSPACES)
        stack.drained()
        contenders.receiver.take()
        worker, redis, calls, began = (
            stack.worker_cpu(),
            stack.redis_cpu(),
            stack.commands()[1],
            time.monotonic(),
        )
        stack.load.burst("b", made, contenders.size.ours)
        stack.drained()
        took = time.monotonic() - began
        posts = contenders.receiver.take()["b"].posts
        return {
            "rate": posts / took,
            "worker": (stack.worker_cpu() - worker) / posts * 1000,
            "redis": (stack.redis_cpu() - redis) / posts * 1000,
            "calls": (stack.commands()[1] - calls) / posts,
        }


def _idle(contenders: Contenders) -> str:
    """The CPU of an installation that does nothing, as shares of a core."""
    rows = []
    for count in (1, IDLE_PARTITIONS):
        contenders.progress.start(f"{count} partitions, nothing to do")
        with running(workers=IDLE_WORKERS, PARTITIONS=str(count)) as stack:
            _all_owned(stack)
            time.sleep(SETTLED_SECONDS)
            worker, redis, began = stack.worker_cpu(), stack.redis_cpu(), time.monotonic()
            time.sleep(IDLE_SECONDS)
            took = time.monotonic() - began
            shares = (stack.worker_cpu() - worker) / took, (stack.redis_cpu() - redis) / took
        rows.append([str(count), *(f"{100 * share:.1f} %" for share in (*shares, sum(shares)))])
    head = [f"partitions, {IDLE_WORKERS} workers, nothing to do", "workers", "Redis", "together"]
    return table(head, rows)


def _all_owned(stack: Stack) -> None:
    """Waits until each partition has an owner, and for a second more, in which what follows the start ends."""
    wait_until(
        lambda: all(stack.client.mget([keys.intake for keys in stack.keys])), 60, "owners of all partitions"
    )
    time.sleep(1)
