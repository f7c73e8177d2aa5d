"""GET /.well-known/jwks.json: the Ed25519 public keys of one subscription, for its receiver. Public, without an API key.

One subscription at a time: a receiver that trusted the keys of all would take another customer's callbacks for its own.
A subscription that does not exist is answered as one without keys. The answers are kept in memory for a minute, and
only so many a second are read from Redis. Names that have keys are kept and counted apart from all others: whoever asks
for one name after another delays neither them nor learns more than that they have keys.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from dispatcher import ed25519
from dispatcher.api.responses import AWAY, parts_of
from dispatcher.errors import InvalidInput
from dispatcher.model import WORKSPACE_PATTERN, encode_json
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace

PATH = "/.well-known/jwks.json"
KEPT_SECONDS = 60
MAX_KEPT = 1000
"""Most answers without keys that are kept in memory."""
MAX_KNOWN = 10_000
"""Most answers with keys; each has at most three."""
READS_A_SECOND = 50
"""Most reads from Redis in a second: of names that had keys when they were last read, and again as many of others."""
USAGE = f"ask as {PATH}?workspace=acme, for another subscription than {DEFAULT} with &subscription=crm"

Name = tuple[str, str]
"""A workspace and a subscription."""

router = APIRouter(include_in_schema=False)


class KeptKeys:
    """Answers that were given in the last minute, and how many were read in this second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known, self._others = _Kept(MAX_KNOWN), _Kept(MAX_KEPT)
        self._under_way: dict[Name, asyncio.Task[bytes]] = {}

    def get(self, of: Name) -> bytes | None:
        """The answer for a workspace and a subscription, unless it is a minute old."""
        until, body = self._known.answers.get(of) or self._others.answers.get(of, (0.0, b""))
        return body if self._clock() < until else None

    def keep(self, of: Name, body: bytes, *, has_keys: bool) -> None:
        """Keeps an answer for a minute. That a name has keys is known until it is read again, and has none."""
        (self._others if has_keys else self._known).answers.pop(of, None)
        (self._known if has_keys else self._others).keep(of, (self._clock() + KEPT_SECONDS, body))

    def may_read(self, of: Name) -> bool:
        """Whether this one may be read now; counts it."""
        return (self._known if of in self._known.answers else self._others).may_read(int(self._clock()))

    async def shared(self, of: Name, read: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes | None:
        """What is read, once for all who ask for a name at the same time; None: it may not be read now."""
        task = self._under_way.get(of)
        if task is None:
            if not self.may_read(of):
                return None
            task = self._under_way[of] = asyncio.create_task(read())
            task.add_done_callback(lambda done: self._ended(of, done))
        return await asyncio.shield(task)

    def _ended(self, of: Name, read: "asyncio.Task[bytes]") -> None:
        """Marks a failure as seen: the callers get it, and if all have gone, asyncio must not log it."""
        self._under_way.pop(of, None)
        error = None if read.cancelled() else read.exception()
        if isinstance(error, HTTPException):  # its keys cannot be unsealed: it is asked for again and again
            self._known.answers.pop(of, None)


class _Kept:
    """Answers of one kind, each with the time until which it is given; and how many were read in a second."""

    def __init__(self, most: int) -> None:
        self.answers: OrderedDict[Name, tuple[float, bytes]] = OrderedDict()
        self._most = most
        self._second, self._reads = 0, 0

    def keep(self, of: Name, answer: tuple[float, bytes]) -> None:
        """Keeps one, and forgets the oldest beyond `most`."""
        self.answers[of] = answer
        self.answers.move_to_end(of)
        if len(self.answers) > self._most:
            self.answers.popitem(last=False)

    def may_read(self, second: int) -> bool:
        """Whether one more may be read in this second; counts it."""
        if second != self._second:
            self._second, self._reads = second, 0
        self._reads += 1
        return self._reads <= READS_A_SECOND


@router.get(PATH)
async def jwks(request: Request, workspace: str = "", subscription: str = DEFAULT) -> Response:
    """The live public keys of a subscription as a JSON Web Key Set (RFC 7517 §5, RFC 8037)."""
    if not re.fullmatch(WORKSPACE_PATTERN, workspace) or not re.fullmatch(WORKSPACE_PATTERN, subscription):
        raise InvalidInput(USAGE)
    parts, of = parts_of(request), (workspace, subscription)
    kept: KeptKeys = request.app.state.kept_keys

    async def read() -> bytes:
        keys = _keys(await parts.workspaces.find(workspace), subscription, parts.now_ms())
        body = encode_json({"keys": keys})
        kept.keep(of, body, has_keys=bool(keys))
        return body

    body = kept.get(of) or await kept.shared(of, read)
    if body is None:
        raise HTTPException(503, AWAY, {"Retry-After": "1"})
    headers = {"Cache-Control": f"public, max-age={KEPT_SECONDS}", "Access-Control-Allow-Origin": "*"}
    return Response(body, 200, headers, "application/jwk-set+json")


def _keys(workspace: Workspace | None, subscription: str, now_ms: int) -> list[dict[str, str]]:
    """The keys, newest first. Raises HTTPException 503 if they cannot be read: an empty set would end all trust."""
    if workspace is None:
        return []
    if workspace.is_damaged:
        raise HTTPException(503, AWAY, {"Retry-After": "60"})
    one = workspace if subscription == DEFAULT else workspace.subscriptions.get(subscription)
    if one is None:
        return []
    if one.problem:
        raise HTTPException(503, AWAY, {"Retry-After": "60"})
    return [ed25519.as_jwk(key.public) for key in reversed(one.live_keys(now_ms))]
