"""The short way of the HTTP intake: calls with one status change, which are enqueued together with what comes meanwhile.

It answers only what it can take, and what fails because of Redis. `status_changes.py` explains what is wrong with
everything else.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import structlog

from dispatcher.api.responses import AWAY, ApiParts, encoded, rate_headers
from dispatcher.api.status_changes import (
    PREFIX,
    RETRY_AFTER_SECONDS,
    Result,
    Results,
    failure,
    looked_at,
    results_of,
)
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.given import Ready
from dispatcher.health import Health
from dispatcher.store.api_keys import ApiKey, Spent
from dispatcher.store.queue_writer import Look
from dispatcher.worker.task_set import TaskSet

log = structlog.get_logger()

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
    """Enqueues single status changes: one batch at a time, of the calls that came while the last one was under way.

    A connection has one call at a time, of at most 64 KiB, so API_MAX_CONNECTIONS bounds those that wait.
    """

    def __init__(
        self, parts: ApiParts, on_away: Callable[[RedisUnavailable], None], health: Health | None = None
    ) -> None:
        self._parts = parts
        self._health = health or Health()
        self._on_away = on_away
        self._waiting: dict[str, list[_Call]] = {}
        """What waits, by its lane (QueueWriter.lane): a server that does not answer holds up its own alone."""
        self._tasks = TaskSet()

    def knows(self, key_text: str) -> bool:
        """Whether the text is a producer's key that was valid seconds ago."""
        return self._parts.producer_keys.kept(key_text) is not None

    def take(self, key_text: str, body: bytes, reply: Reply) -> None:
        """Takes a call; `reply` may be called before this returns."""
        key = self._parts.producer_keys.kept(key_text)
        if self._health.serves_nothing or not body.startswith(b"{"):
            reply(None)
        elif key:
            self._take(key, body, reply)
        else:
            self._tasks.start(self._identify(key_text, body, reply))

    async def _identify(self, key_text: str, body: bytes, reply: Reply) -> None:
        try:
            key = await self._parts.producer_keys.identify(key_text)
        except RedisUnavailable as error:
            reply(self._away(error))
            return
        except Exception:  # the application meets it too, and reports it
            key = None
        if key:
            self._take(key, body, reply)
        else:
            reply(None)

    def _take(self, key: ApiKey, body: bytes, reply: Reply) -> None:
        change = self._read(body)
        if change is None:
            reply(None)
            return
        lane, call = self._parts.queue.lane(change.workspace), _Call(key, change, reply)
        if lane in self._waiting:
            self._waiting[lane].append(call)
        else:
            self._waiting[lane] = [call]
            self._tasks.start(self._send_all(lane))

    def _read(self, body: bytes) -> Ready | None:
        try:
            return looked_at(body, self._parts)[0]
        except Exception:  # the application meets it too, and reports it
            return None

    async def _send_all(self, lane: str) -> None:
        """Sends what waits in a lane, which is gone when nothing does."""
        try:
            while waiting := self._waiting[lane]:
                batch, self._waiting[lane] = waiting[:AT_ONCE], waiting[AT_ONCE:]
                await self._send(batch, lane)
        finally:
            del self._waiting[lane]

    async def _send(self, batch: list[_Call], lane: str) -> None:
        """Answers every call of a batch."""
        answers: Sequence[Answer | None] = [None] * len(batch)
        try:
            answers = await self._answers(batch, lane)
        except RedisFull:  # nothing is counted or enqueued; the application can still say what is invalid
            pass
        except RedisUnavailable as error:
            answers = [self._away(error) for _ in batch]
            self._refuse_waiting(error, lane)
        except Exception:
            log.exception("api.internal_error", path=PREFIX)
        for call, answer in zip(batch, answers, strict=True):
            _reply(call, answer)

    async def _answers(self, batch: list[_Call], lane: str) -> list[Answer | None]:
        """Enqueues what may be enqueued. Raises RedisUnavailable if nothing is."""
        spent, away = await self._admit(batch)
        going = [call.change for call, one in zip(batch, spent, strict=True) if one]
        errors = iter(await self._add(going, lane))
        pairs = zip(batch, spent, strict=True)
        return [
            self._answer(call.change, one, next(errors))
            if one
            else self._away(away[call.change.workspace])
            if call.change.workspace in away
            else None
            for call, one in pairs
        ]

    async def _admit(self, batch: list[_Call]) -> tuple[list[Spent | None], Mapping[str, RedisUnavailable]]:
        """What its key has left, for each call; None for a call that must not be enqueued, which is then not counted.

        Also the workspaces whose partition does not answer. Raises RedisUnavailable.
        """
        calls = Counter(call.key.id for call in batch)
        look = await self._parts.queue.look(calls, list({call.change.workspace for call in batch}))
        counted = Counter(look.spent) - calls
        spent: list[Spent | None] = []
        for call in batch:
            counted[call.key.id] += 1
            rate = call.key.rate_per_second
            one = Spent(rate, rate - counted[call.key.id], look.second + 1)
            spent.append(one if self._may_go(call, one, look) else None)
        if others := Counter(call.key.id for call, one in zip(batch, spent, strict=True) if not one):
            await self._parts.queue.refund(look, others)
        return spent, look.away

    def _may_go(self, call: _Call, spent: Spent, look: Look) -> bool:
        workspace = call.change.workspace
        is_full = look.queued_for(workspace) > self._parts.max_queued
        return spent.remaining >= 0 and not is_full and workspace not in (*look.unknown, *look.away)

    async def _add(self, changes: Sequence[Ready], lane: str) -> list[Exception | None]:
        try:
            errors = await self._parts.queue.add(
                [one.raw for one in changes], [one.workspace for one in changes]
            )
        except RedisUnavailable as error:
            errors = [error] * len(changes)
        for one in errors:
            if isinstance(one, RedisUnavailable) and not isinstance(one, RedisFull):
                self._refuse_waiting(one, lane)
        return errors

    def _answer(self, change: Ready, spent: Spent, error: Exception | None) -> Answer | None:
        headers = rate_headers(spent)
        if error is None:
            return Answer(202, headers, _QUEUED.replace(_ID, change.event_id.encode()))
        if isinstance(error, RedisFull):
            return self._away(error, headers)
        if isinstance(error, RedisUnavailable):
            return Answer(503, headers | _AGAIN, encoded(results_of([(change, "")], set())))
        return None

    def _refuse_waiting(self, error: RedisUnavailable, lane: str) -> None:
        """Refuses what came meanwhile, so that no call waits more than once for a Redis that does not answer."""
        waiting, self._waiting[lane] = self._waiting[lane], []
        for call in waiting:
            _reply(call, self._away(error))

    def _away(self, error: RedisUnavailable, headers: Mapping[str, str] = MappingProxyType({})) -> Answer:
        self._on_away(error)
        return Answer(503, {**headers, **_AGAIN}, encoded(failure(503, AWAY)))


def _reply(call: _Call, answer: Answer | None) -> None:
    asyncio.get_running_loop().call_soon(call.reply, answer)  # an error in one is no error of the others


_AGAIN = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_ID = b"-id-"
_QUEUED = encoded(Results(queued=1, results=[Result(event_id=_ID.decode(), result="queued")]))
"""The body of a 202, with _ID in place of the eventId, which needs no escapes in JSON."""
