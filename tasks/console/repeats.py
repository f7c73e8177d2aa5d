"""A form that is sent twice, as by a double click, is carried out once, and both get its answer."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from starlette.responses import Response

REPEAT_SECONDS = 2.0
"""How long after its answer the same form counts as a repetition of it."""


class Repeats:
    """The latest form of each session, while it is answered and for a moment afterwards."""

    def __init__(self) -> None:
        self._latest: dict[Hashable, tuple[Hashable, asyncio.Task[Response]]] = {}

    async def once(
        self, session: Hashable, form: Hashable, answer: Callable[[], Coroutine[Any, Any, Response]]
    ) -> Response:
        """What `answer` gives, or gave the same form a moment ago, if the session sent no other since. Raises what it raises.

        The answer is made to its end also if who asked first has gone: a browser drops the first of two clicks. What
        failed is done again.
        """
        latest, task = self._latest.get(session, (None, None))
        if task is None or latest != form:
            task = asyncio.create_task(answer())
            self._latest[session] = form, task
            task.add_done_callback(lambda done: self._forget_later(session, done))
        return await asyncio.shield(task)

    def _forget_later(self, session: Hashable, task: "asyncio.Task[Response]") -> None:
        is_answered = not task.cancelled() and task.exception() is None
        seconds = REPEAT_SECONDS if is_answered else 0.0
        asyncio.get_running_loop().call_later(seconds, self._forget, session, task)

    def _forget(self, session: Hashable, task: "asyncio.Task[Response]") -> None:
        if self._latest.get(session, (None, None))[1] is task:
            del self._latest[session]
