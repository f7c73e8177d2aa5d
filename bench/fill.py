"""Fills the ledger with waiting callbacks through accept, as intake does, but without the queue and without a worker."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

from bench.load import Customer, Load
from dispatcher.model import StatusChange
from dispatcher.rules.callback import Callback
from dispatcher.rules.render import RenderOptions, render
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import Room, ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.sealing import SecretBox
from dispatcher.store.wire import Wire
from dispatcher.store.workspaces import Workspaces

BATCH = 256
"""Callbacks accepted in one call."""
AT_ONCE = 3
"""Calls under way: Redis accepts one while we render the next."""
LEASE_MS = 3_600_000
TOKEN = "fill"
NOBODY_SERVES = Room(claims=0, hints=0)
OPTIONS = RenderOptions(allow_http=True)


def fill(
    url: str, group: str, customers: Sequence[Customer], count: int, tell: Callable[[float], None]
) -> None:
    """Has `count` callbacks accepted, customers in turn. All wait, due now; workers find them by waking."""
    asyncio.run(_fill(url, group, customers, count, tell))


async def _fill(
    url: str, group: str, customers: Sequence[Customer], count: int, tell: Callable[[float], None]
) -> None:
    client = connect_async(url)
    wire = Wire(client)
    ledger = Ledger(wire.call, Keys(), url)
    known = Workspaces(client, Keys(), SecretBox([]), allow_http=True)
    workspaces = {name: await known.require(name) for name in {one.workspace for one in customers}}
    await ledger.lead(TOKEN, LEASE_MS)
    callbacks = _callbacks(group, customers, workspaces)
    under_way: set[asyncio.Task[None]] = set()
    for first in range(0, count, BATCH):
        batch = list(islice(callbacks, min(BATCH, count - first)))
        under_way.add(asyncio.create_task(_accept(ledger, batch, workspaces)))
        await asyncio.sleep(0)  # sends it
        while len(under_way) >= AT_ONCE:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        tell(first / count)
    for task in under_way:
        await task
    await ledger.lead(TOKEN, 0)
    await wire.close()
    await client.aclose()


def _callbacks(
    group: str, customers: Sequence[Customer], workspaces: dict[str, Workspace]
) -> Iterator[tuple[str, Callback]]:
    """Rendered callbacks without end, each with the id of a queue entry that is gone already."""
    load, now_ms = Load(None), round(time.time() * 1000)
    for number, customer in enumerate(cycle(customers)):
        change = StatusChange.from_json(load.change(group, customer))
        callback = render(change, workspaces[customer.workspace], now_ms, OPTIONS)
        assert isinstance(callback, Callback)
        yield f"1-{number + 1}", callback


async def _accept(
    ledger: Ledger, batch: Sequence[tuple[str, Callback]], workspaces: dict[str, Workspace]
) -> None:
    revisions = {one.workspace: workspaces[one.workspace].revision for _, one in batch}
    accepted = await ledger.accept(TOKEN, revisions, [], ToAccept(batch), NOBODY_SERVES)
    if set(accepted.words) != {"accepted"}:
        raise SystemExit(f"error: accept answered {set(accepted.words)}")
