"""The console's store: opened when the first page wants it, so that the console starts without Redis too."""

import asyncio
from contextlib import AsyncExitStack

from config.settings import Settings
from dispatcher.store.callbacks import Place
from dispatcher.store.latest_alerts import LatestAlerts
from dispatcher.store.sessions import Sessions
from tasks import wiring


class Opened:
    """Opens the store once, and what lies in its first partition. Every method raises RedisUnavailable or OtherFormat."""

    def __init__(self, settings: Settings, closing: AsyncExitStack) -> None:
        self._settings = settings
        self._closing = closing
        self._store: wiring.Store | None = None
        self._opening: asyncio.Task[wiring.Store] | None = None

    async def store(self) -> wiring.Store:
        """The store. All who ask while it is being opened wait for the same attempt."""
        if self._store is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._store = await asyncio.shield(self._opening)
        return self._store

    async def _open(self) -> wiring.Store:
        return await self._closing.enter_async_context(wiring.store(self._settings, keep=True))

    async def close(self) -> None:
        """Ends opening it."""
        if self._opening and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening})

    async def sessions(self) -> Sessions:
        """The sessions."""
        place = await self._first()
        return Sessions(place.client.execute_command, place.keys, place.url)

    async def alerts(self) -> LatestAlerts:
        """The latest alerts."""
        place = await self._first()
        return LatestAlerts(place.client.execute_command, place.keys, place.url)

    async def _first(self) -> Place:
        return wiring.first_place(self._settings, await self.store())
