"""Which attempts are spans of a trace, and a sender that makes them so.

Knows no OpenTelemetry: open_telemetry.py does, and is loaded only where spans are wanted.
"""

import random
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.sender import Sender
from dispatcher.sending.token_post import Poster
from dispatcher.sending.tokens import Tokens

log = structlog.get_logger()


class Span(Protocol):
    """An attempt that is under way, as a span."""

    @property
    def trace(self) -> tuple[str, ...]:
        """The traceparent that goes to the receiver, and the tracestate if there is one (W3C Trace Context §2.2)."""

    def end(self, attempt: Attempt) -> None:
        """Ends the span with the result. One that is not ended is never exported."""


class Tracer(Protocol):
    """Makes spans and exports those that have ended."""

    def start(self, callback: Claimed, workspace: Workspace | None) -> Span:
        """Starts the span of an attempt: a child of the callback's trace, or a trace of its own."""

    async def aclose(self) -> None:
        """Exports what has ended, within a bound."""


def is_sampled(traceparent: str) -> bool:
    """Whether a valid traceparent has the flag `sampled` (W3C Trace Context, level 1, §3.2.2.5)."""
    return traceparent[-1] in "13579bdf"


class SpanSender(Sender):
    """A sender whose attempts are spans: those of a sampled trace, and a share of those without a trace.

    Nothing that goes wrong with a span stops an attempt.
    """

    def __init__(
        self,
        transport: Poster,
        user_agent: str,
        tracer: Tracer,
        share: float,
        chance: Callable[[], float] = random.random,
        tokens: Tokens | None = None,
    ) -> None:
        super().__init__(transport, user_agent, tokens)
        self._tracer = tracer
        self._share = share
        self._chance = chance

    async def send(self, callback: Claimed, workspace: Workspace | None, now_ms: int) -> Attempt:
        """Makes one attempt, at `now_ms` by Redis's clock."""
        trace = callback.trace
        if not (is_sampled(trace[0]) if trace else self._chance() < self._share):
            return await super().send(callback, workspace, now_ms)
        try:
            span = self._tracer.start(callback, workspace)
            traced = msgspec.structs.replace(callback, trace=span.trace)
        except Exception:
            log.exception("span.not_started", event_id=callback.event_id)
            return await super().send(callback, workspace, now_ms)
        attempt = await super().send(traced, workspace, now_ms)
        try:
            span.end(attempt)
        except Exception:
            log.exception("span.not_ended", event_id=callback.event_id)
        return attempt
