"""An HTTP receiver that verifies callbacks: `dispatcher listen` runs it, and the demo as its customers."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from dispatcher.errors import DispatcherError
from dispatcher.model import decode_json
from dispatcher.rules.signature_diagnosis import diagnose

MAX_BODY_BYTES = 1024 * 1024

Answer = Callable[[web.Request, int], Awaitable[web.Response]]
"""Makes the answer to a request; the number counts the POSTs of this webhook-id, from 1."""


@dataclass(frozen=True, slots=True)
class Received:
    """One received POST."""

    event_id: str
    event_type: str
    message: str
    number: int
    """Which POST of this webhook-id it is, from 1."""
    problem: str | None
    """Why verification failed; None if it succeeded."""
    status: int
    """The HTTP status of the answer."""
    body: bytes
    port: int
    """The port that received it."""


async def answer_ok(_request: web.Request, _number: int) -> web.Response:
    """Answers 200 at once, as a customer should."""
    return web.Response(text="ok")


class Receiver:
    """Listens on one or more addresses; `secrets_of` gives the secrets to verify a request with.

    `others` are wrong secrets by description: a callback signed with one of them is reported as such.
    """

    def __init__(
        self,
        secrets_of: Callable[[web.Request], Sequence[str]],
        on_received: Callable[[Received], None],
        answer: Answer = answer_ok,
        others: Mapping[str, str] | None = None,
    ) -> None:
        self._secrets_of = secrets_of
        self._on_received = on_received
        self._answer = answer
        self._others = others
        self._seen: Counter[str] = Counter()
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def listen(self, host: str, port: int = 0) -> int:
        """Starts listening; returns the port. Raises OSError."""
        if self._runner.server is None:
            await self._runner.setup()
        before = len(self._runner.addresses)
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[before][1])

    async def close(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        port = port_of(request)  # read now: the connection may be gone later
        body = await request.read()
        event_id = request.headers.get("webhook-id", "")
        self._seen[event_id] += 1
        number = self._seen[event_id]
        response = await self._answer(request, number)
        event_type, message = _names(body)
        problem = diagnose(request.headers, body, self._secrets_of(request), others=self._others)
        self._on_received(
            Received(event_id, event_type, message, number, problem, response.status, body, port)
        )
        return response


def port_of(request: web.Request) -> int:
    """The local port that received a request."""
    assert request.transport
    return int(request.transport.get_extra_info("sockname")[1])


def _names(body: bytes) -> tuple[str, str]:
    """Event type and message id, wherever a dialect puts them; "?" if unknown."""
    try:
        document: Any = decode_json(body)
    except DispatcherError:
        return "?", "?"
    if not isinstance(document, dict):
        return "?", "?"
    message = document.get("message")
    inner = message if isinstance(message, dict) else {}
    event_type = document.get("eventType") or document.get("event") or document.get("type") or "?"
    return str(event_type), str(inner.get("uuid") or inner.get("id") or document.get("messageId") or "?")
