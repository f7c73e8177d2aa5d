"""What a producer is given: each status change validated, and what is wrong with the others."""

import functools
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatcher.errors import InvalidInput, kind_of
from dispatcher.model import StatusChange, check_not_ahead, timestamp_ms
from dispatcher.records import Record

if TYPE_CHECKING:
    from dispatcher.fast_decode import DecodedChange
    from dispatcher.rules.addresses import CallbackUrl

SHOWN = 3
"""Problems that an error text lists; `problems` has all of them."""

Change = StatusChange | Mapping[str, Any]
"""A StatusChange, or a dict with the names as in JSON."""


class Ready(NamedTuple):
    """A validated status change, as it goes onto the queue."""

    event_id: str
    workspace: str
    raw: bytes
    message: str = ""
    """The UUID of its message, which decides on the partition."""


def ready(change: Change, now_ms: int, *, allow_http: bool = True) -> Ready:
    """Validates what every worker would reject: fields, length, an unusable callback URL, a time too far ahead.

    Raises InvalidInput.
    """
    one = change if isinstance(change, StatusChange) else StatusChange.from_dict(change)
    check_time_and_url(one, now_ms, allow_http=allow_http)
    return Ready(one.event_id, one.workspace, one.to_json(), one.message.uuid)


def check_time_and_url(change: "StatusChange | DecodedChange", now_ms: int, *, allow_http: bool) -> None:
    """Raises InvalidInput for a valid status change with a time too far ahead or an unusable callback URL."""
    check_not_ahead(timestamp_ms(change.timestamp), now_ms)
    if change.callback_url is not None:
        _check_url(change.callback_url, allow_http)


def unknown_workspace(workspace: str) -> str:
    """The error text for a status change of an unknown workspace."""
    return f"workspace: there is no workspace {workspace!r}"


class Given:
    """The given status changes by position: the valid ones, and the problems of the others."""

    def __init__(self) -> None:
        self._ready: dict[int, Ready] = {}
        self._problems: dict[int, str] = {}

    @property
    def valid(self) -> Iterable[Ready]:
        return self._ready.values()

    @property
    def workspaces(self) -> Iterable[str]:
        return (one.workspace for one in self._ready.values())

    def add(self, position: int, given: object) -> int:
        """Validates one; returns how many bytes it has if it is valid."""
        try:
            if not isinstance(given, StatusChange | Mapping):
                raise InvalidInput(_what_it_is(given))
            one = self._ready[position] = ready(given, round(time.time() * 1000))
        except InvalidInput as error:
            self._problems[position] = str(error)
            return 0
        return len(one.raw)

    def take_out(self, unknown: Sequence[str]) -> None:
        """Marks those of unknown workspaces as invalid."""
        if unknown:
            names = frozenset(unknown)
            wrong = {n: one.workspace for n, one in self._ready.items() if one.workspace in names}
            self._problems |= {number: unknown_workspace(workspace) for number, workspace in wrong.items()}
            self._ready = {number: one for number, one in self._ready.items() if number not in wrong}

    def refuse(self, skip_invalid: bool) -> None:
        """Raises InvalidInput if some are invalid and must not be skipped."""
        if not self._problems or skip_invalid:
            return
        problems = sorted(self._problems.items())
        if len(problems) + len(self._ready) == 1:
            raise InvalidInput(
                f"the status change is invalid, and was not enqueued: {problems[0][1]}", problems
            )
        shown = "; ".join(f"number {position}: {text}" for position, text in problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        count = "1 status change is" if len(problems) == 1 else f"{len(problems)} status changes are"
        raise InvalidInput(f"{count} invalid, none was enqueued: {shown}{more}", problems)


def looked_at(changes: Iterable[object]) -> Given:
    looked_at = Given()
    for position, given in enumerate(changes):
        looked_at.add(position, given)
    return looked_at


def several(changes: object) -> Iterable[object]:
    """The argument of `enqueue_many`, if it is an iterable of status changes. Raises InvalidInput."""
    if isinstance(changes, Record | Mapping):  # these are iterable too
        raise InvalidInput(
            "enqueue_many takes a list of status changes, or another iterable; enqueue takes one"
        )
    if isinstance(changes, Iterable) and not isinstance(changes, str | bytes | bytearray):
        return changes
    raise InvalidInput(
        f"enqueue_many takes a list of status changes, or another iterable: this {kind_of(changes)}"
    )


def _what_it_is(given: object) -> str:
    """Explains why a value is not a status change."""
    if isinstance(given, str | bytes | bytearray | memoryview):
        return f"{kind_of(given)}: give a StatusChange or a dict; StatusChange.from_json reads JSON"
    if isinstance(given, Iterable | AsyncIterable) and not isinstance(given, Record):
        return f"{kind_of(given)}: enqueue takes status changes one by one; enqueue_many takes a list of them"
    if isinstance(given, Awaitable):
        return f"{kind_of(given)} that was not awaited: give a StatusChange or a dict"
    return f"{kind_of(given)}: give a StatusChange or a dict"


@functools.cache
def _url_parser() -> "Callable[..., CallbackUrl]":
    from dispatcher.rules.addresses import parse_callback_url  # whoever gives no URL does not pay for it

    return parse_callback_url


def _check_url(url: str, allow_http: bool) -> None:
    """Raises InvalidInput for a URL that no settings would allow."""
    parse = _url_parser()
    try:
        parse(url, allow_http=allow_http)
    except ImportError:  # of idna, for a host that is not ASCII: a worker has it, and checks the URL
        return
