"""What several subscriptions cost: one status change to four of them, beside four status changes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

from bench.contenders import Contenders, customers, ratio
from bench.load import Customer
from bench.report import spread, table
from bench.stack import Stack, running
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces

WORKSPACES, EACH = 100, 4
FANNED, APART = "one status change, four subscriptions", "four status changes"


def fan_out(contenders: Contenders) -> str:
    """Rate and CPU of a callback, either way; as many endpoints and callbacks in both."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(contenders.size.rounds):
        for name in (FANNED, APART):
            contenders.progress.start(f"fan-out: {name}")
            for figure, value in _run(contenders, is_fanned=name == FANNED).items():
                found[name, figure].append(value)
    rows = [
        [name, *(spread(found[name, figure], digits) for figure, digits in FIGURES.items())]
        for name in (FANNED, APART)
    ]
    ratios = [ratio(found[FANNED, figure], found[APART, figure]) for figure in FIGURES]
    head = [
        f"{WORKSPACES} workspaces, {EACH} receivers each",
        "callbacks/s",
        "worker ms each",
        "Redis ms each",
    ]
    return table(head, [*rows, ["ratio", *ratios]])


FIGURES = {"rate": 0, "worker": 3, "redis": 3}


def _run(contenders: Contenders, *, is_fanned: bool) -> dict[str, float]:
    count = contenders.size.ours
    with running() as stack:
        made = _made(stack, contenders.urls(WORKSPACES * EACH), is_fanned=is_fanned)
        stack.load.burst("w", made, WORKSPACES * (1 if is_fanned else EACH))
        stack.drained()
        contenders.receiver.take()
        worker, redis, began = stack.worker_cpu(), stack.redis_cpu(), time.monotonic()
        stack.load.burst("b", made, count // EACH if is_fanned else count)
        stack.drained()
        took = time.monotonic() - began
        posts = contenders.receiver.take()["b"].posts
        return {
            "rate": posts / took,
            "worker": (stack.worker_cpu() - worker) / posts * 1000,
            "redis": (stack.redis_cpu() - redis) / posts * 1000,
        }


def _made(stack: Stack, urls: Sequence[str], *, is_fanned: bool) -> list[Customer]:
    """Workspaces of the first URLs; the others are subscriptions, or come with status changes."""
    own = customers(stack, urls[:WORKSPACES])
    if not is_fanned:
        return [Customer(own[n % WORKSPACES].workspace, url) for n, url in enumerate(urls)]

    async def subscribe() -> None:
        client = connect_async(stack.server.url)
        subscriptions = Subscriptions(Workspaces(client, Keys(), SecretBox([]), allow_http=True))
        for number, url in enumerate(urls[WORKSPACES:]):
            workspace, name = own[number % WORKSPACES].workspace, f"s{number // WORKSPACES}"
            await subscriptions.add(workspace, name, url, now_ms=round(time.time() * 1000))
        await client.aclose()

    asyncio.run(subscribe())
    return [Customer(one.workspace, "") for one in own]
