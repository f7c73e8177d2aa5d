"""On the path of a worker: the faults that must strike at one certain line. `FAULT` names one."""

import os
import signal
import time

FAULT, ARGUMENT = os.environ.get("FAULT", ""), os.environ.get("FAULT_ARGUMENT", "")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_send() -> None:
    """The worker dies when it is about to POST one certain event."""
    from dispatcher.sending import sender

    send = sender.Sender.send

    async def die_or_send(self, callback, *args):  # type: ignore[no-untyped-def]
        if callback.event_id == ARGUMENT:
            _die()
        return await send(self, callback, *args)

    sender.Sender.send = die_or_send  # type: ignore[method-assign]


def _before_unacked() -> None:
    """The worker dies when it has taken a Celery message off the queue, and not yet written that it has it."""
    from kombu.transport import redis

    redis.QoS.append = lambda *_: _die()


def _skewed() -> None:
    """The worker's clock is wrong by so many seconds, and jumps back by twice as many after ten."""
    real, began, skew = time.time, time.time(), float(ARGUMENT)
    time.time = lambda: real() + (skew if real() - began < 10 else -skew)
    real_ns = time.time_ns
    time.time_ns = lambda: real_ns() + round(skew * 1e9)


def _loop_dies() -> None:
    """The engine's loop ends by an unexpected error, after some seconds; one of its tasks misses every cancellation."""
    import asyncio

    from dispatcher.worker import waker

    wake, until = waker.Waker.wake, time.monotonic() + float(ARGUMENT)

    async def never_end() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    async def wake_or_die(self):  # type: ignore[no-untyped-def]
        if time.monotonic() > until:
            self.never_ends = asyncio.create_task(never_end())
            await asyncio.sleep(0)
            raise BaseException("the loop is dead")
        return await wake(self)

    waker.Waker.wake = wake_or_die  # type: ignore[method-assign]


def _before_accept() -> None:
    """The worker stops, as a stalled machine does, when it is about to accept a status change of one certain message."""
    messages = {ARGUMENT}

    def stop(callbacks) -> None:  # type: ignore[no-untyped-def]
        if messages & {message for _, message in callbacks.messages()}:
            messages.clear()
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.5)  # another thread may take the signal, and this one run on for a moment

    _tell_refused_accepts(stop)


def _alone() -> None:
    """The worker takes all others for dead, so it tries to lead every partition."""
    from dispatcher.worker import partition_owner

    partition_owner.alive = lambda *_: set()
    _tell_refused_accepts(lambda _: None)


def _tell_refused_accepts(before) -> None:  # type: ignore[no-untyped-def]
    """Calls `before` with what is about to be accepted, and logs each accept that is refused because another worker leads.

    An accept whose connection broke is sent again, so that Redis sees it.
    """
    import asyncio

    from dispatcher.errors import NotLeader, RedisUnavailable
    from dispatcher.store import ledger

    accept = ledger.Ledger.accept

    async def tell(self, token, revisions, skipped, callbacks, *rest):  # type: ignore[no-untyped-def]
        before(callbacks)
        while True:
            try:
                return await accept(self, token, revisions, skipped, callbacks, *rest)
            except NotLeader:
                os.write(2, b'{"event": "fault.accept_refused"}\n')
                raise
            except RedisUnavailable:
                await asyncio.sleep(0.1)

    ledger.Ledger.accept = tell  # type: ignore[method-assign]


{
    "before_accept": _before_accept,
    "alone": _alone,
    "loop_dies": _loop_dies,
    "before_send": _before_send,
    "before_unacked": _before_unacked,
    "skewed": _skewed,
}.get(FAULT, lambda: None)()
