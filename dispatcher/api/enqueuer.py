"""The short way of the HTTP intake: calls with one status change, which are enqueued together with what comes meanwhile.

It answers only what it can take, and what fails because of Redis. `status_changes.py` explains what is wrong with
everything else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from dispatcher.api.responses import AWAY, ApiParts, encoded, rate_headers
from dispatcher.api.status_changes import (
    RETRY_AFTER_SECONDS,
    Result,
    Results,
    failure,
    looked_at,
    results_of,
)
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.producer import Ready
from dispatcher.store.api_keys import PRODUCERS, ApiKey, Spent
from dispatcher.store.queue_writer import Look
from dispatcher.worker.task_set import TaskSet

AT_ONCE = 64
"""Most calls that are enqueued together."""


class Answer(NamedTuple):
    """An HTTP answer; its body is JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Reply = Callable[[Answer | None], None]
"""Is called once for each call. None: nothing was done, and the call belongs to the application."""


class _Call(NamedTuple):
    key: ApiKey
    change: Ready
    reply: Reply


class Enqueuer:
    """Enqueues single status changes: one batch at a time, of the calls that came while the last one was under way."""

    def __init__(self, parts: ApiParts, on_away: Callable[[RedisUnavailable], None]) -> None:
        self._parts = parts
        self._on_away = on_away
        self._waiting: list[_Call] = []
        self._is_sending = False
        self._tasks = TaskSet()

    def knows(self, key_text: str) -> bool:
        """Whether the text is an API key that was valid seconds ago."""
        return self._parts.producer_keys.kept(key_text) is not None

    def take(self, key_text: str, body: bytes, reply: Reply) -> None:
        """Takes a call; `reply` may be called before this returns."""
        key = self._parts.producer_keys.kept(key_text)
        if key:
            self._take(key, body, reply)
        else:
            self._tasks.start(self._identify(key_text, body, reply))

    async def _identify(self, key_text: str, body: bytes, reply: Reply) -> None:
        try:
            key = await self._parts.producer_keys.identify(key_text)
        except RedisUnavailable as error:
            reply(self._away(error))
            return
        if key:
            self._take(key, body, reply)
        else:
            reply(None)

    def _take(self, key: ApiKey, body: bytes, reply: Reply) -> None:
        change = looked_at(body, self._parts)[0] if key.platform == PRODUCERS else None
        if change is None:
            reply(None)
            return
        self._waiting.append(_Call(key, change, reply))
        if not self._is_sending:
            self._is_sending = True
            self._tasks.start(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                await self._send(batch)
        finally:
            self._is_sending = False

    async def _send(self, batch: list[_Call]) -> None:
        try:
            taken = await self._admitted(batch)
        except RedisUnavailable as error:
            if isinstance(error, RedisFull):  # nothing was counted
                _pass_on(batch)
            else:
                self._refuse([*batch, *self._all_waiting()], error)
        except Exception:  # a bug: the application meets it too, and reports it
            _pass_on(batch)
        else:
            await self._enqueue(taken)

    async def _admitted(self, batch: list[_Call]) -> list[tuple[_Call, Spent]]:
        """The calls that may be enqueued, each with what its key has left. The application gets the others.

        Raises RedisUnavailable.
        """
        calls = Counter(call.key.id for call in batch)
        look = await self._parts.queue.look(calls, list({call.change.workspace for call in batch}))
        before = {id_: look.spent[id_] - count for id_, count in calls.items()}
        taken, others = [], []
        for call in batch:
            before[call.key.id] += 1
            rate = call.key.rate_per_second
            spent = Spent(rate, rate - before[call.key.id], look.second + 1)
            if self._may_go(call, spent, look):
                taken.append((call, spent))
            else:
                others.append(call)
        if others:
            await self._parts.queue.refund(look, Counter(call.key.id for call in others))
            _pass_on(others)
        return taken

    def _may_go(self, call: _Call, spent: Spent, look: Look) -> bool:
        is_full = look.queued > self._parts.max_queued
        return spent.remaining >= 0 and not is_full and call.change.workspace not in look.unknown

    async def _enqueue(self, taken: list[tuple[_Call, Spent]]) -> None:
        try:
            errors = await self._parts.queue.add([call.change.raw for call, _ in taken])
        except RedisUnavailable as away:
            errors = [away] * len(taken)
            self._refuse(self._all_waiting(), away)
        for (call, spent), error in zip(taken, errors, strict=True):
            call.reply(self._answer(call.change, spent, error))

    def _answer(self, change: Ready, spent: Spent, error: Exception | None) -> Answer | None:
        headers = rate_headers(spent)
        if error is None:
            return Answer(202, headers, _QUEUED.replace(_ID, change.event_id.encode()))
        if isinstance(error, RedisFull):
            return self._away(error, headers)
        if isinstance(error, RedisUnavailable):
            return Answer(503, headers | _AGAIN, encoded(results_of([(change, "")], set())))
        return None

    def _all_waiting(self) -> list[_Call]:
        """Takes those that wait: what comes after Redis failed to answer is not to wait for it once more."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _refuse(self, calls: Iterable[_Call], error: RedisUnavailable) -> None:
        for call in calls:
            call.reply(self._away(error))

    def _away(self, error: RedisUnavailable, headers: Mapping[str, str] = MappingProxyType({})) -> Answer:
        self._on_away(error)
        return Answer(503, {**headers, **_AGAIN}, encoded(failure(503, AWAY)))


def _pass_on(calls: Iterable[_Call]) -> None:
    for call in calls:
        call.reply(None)


_AGAIN = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_ID = b"-id-"
_QUEUED = encoded(Results(queued=1, results=[Result(event_id=_ID.decode(), result="queued")]))
"""The body of a 202, with _ID in place of the eventId, which needs no escapes in JSON."""
