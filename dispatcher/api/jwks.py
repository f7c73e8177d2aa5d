"""GET /.well-known/jwks.json: the Ed25519 public keys of one subscription, for its receiver. Public, without an API key.

One subscription at a time: a receiver that trusted the keys of all would take another customer's callbacks for its own.
A subscription that does not exist is answered as one without keys. The answers are kept in memory for a minute, and
only so many a second are read from Redis.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable

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
"""Most answers that are kept in memory; each has at most three keys."""
READS_A_SECOND = 50
"""Most reads from Redis in a second, for callers who ask for one name after another."""
USAGE = f"ask as {PATH}?workspace=acme, for another subscription than {DEFAULT} with &subscription=crm"

router = APIRouter(include_in_schema=False)


class KeptKeys:
    """Answers that were given in the last minute, and how many were read in this second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._second, self._reads = 0, 0

    def get(self, of: tuple[str, str]) -> bytes | None:
        """The answer for a workspace and a subscription, unless it is a minute old."""
        until, body = self._kept.get(of, (0.0, b""))
        return body if self._clock() < until else None

    def keep(self, of: tuple[str, str], body: bytes) -> None:
        """Keeps an answer for a minute."""
        self._kept[of] = self._clock() + KEPT_SECONDS, body
        self._kept.move_to_end(of)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def may_read(self) -> bool:
        """Whether one more may be read now; counts it."""
        second = int(self._clock())
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
    body = kept.get(of)
    if body is None:
        if not kept.may_read():
            raise HTTPException(503, AWAY, {"Retry-After": "1"})
        body = encode_json(
            {"keys": _keys(await parts.workspaces.get(workspace), subscription, parts.now_ms())}
        )
        kept.keep(of, body)
    headers = {"Cache-Control": f"public, max-age={KEPT_SECONDS}", "Access-Control-Allow-Origin": "*"}
    return Response(body, 200, headers, "application/jwk-set+json")


def _keys(workspace: Workspace | None, subscription: str, now_ms: int) -> list[dict[str, str]]:
    """The keys, newest first. Raises HTTPException 503 if they cannot be decrypted: an empty set would end all trust."""
    if workspace is None:
        return []
    one = workspace if subscription == DEFAULT else workspace.subscriptions.get(subscription)
    if one is None:
        return []
    if one.problem:
        raise HTTPException(503, AWAY, {"Retry-After": "60"})
    return [ed25519.as_jwk(key.public) for key in reversed(one.live_keys(now_ms))]
