"""Sessions of the console, and its portal's links: random texts that are kept as digests, each for a limited time."""

import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import msgspec
import structlog

from dispatcher.model import encode_json
from dispatcher.store.connection import translated
from dispatcher.store.damaged import number
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call

EVERYBODY = "*"
"""In place of a person: all of them."""
LONGEST_SECONDS = 30 * 86_400
"""No session is longer than this."""
LINK_SECONDS, PORTAL_SECONDS = 300, 3600
"""How long a link to the portal is valid, and the session that it begins."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """Who has logged in. Times are ms since 1970."""

    who: str
    """Identifies the person: `key:key_…`, `oidc:SUBJECT`, `proxy:NAME`, `link`, or `portal:WORKSPACE`, with `:NAME` if the link has one."""
    name: str
    """As people read it."""
    role: str
    created_ms: int
    ends_ms: int
    workspace: str = ""
    """The one workspace that a customer may see; empty for operators."""
    frame: str = ""
    """The site (scheme://host) that may show the portal in a frame; empty: none."""


class Sessions:
    """Reads and changes sessions in one Redis. Every method raises RedisUnavailable."""

    def __init__(self, call: Call, keys: Keys, url: str = "") -> None:
        self._call = call
        self._keys = keys
        self._url = url

    async def now_ms(self) -> int:
        """Redis's time, by which sessions begin and end."""
        with translated(self._url):
            seconds, micros = await self._call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def begin(self, session: Session) -> str:
        """Stores a session until its end; returns the text that opens it, which is not stored."""
        return await self._keep(self._keys.session, session, session.ends_ms - session.created_ms)

    async def of(self, text: str, now_ms: int) -> Session | None:
        """The session of this text; None if there is none, if it is over, or if its person logged out everywhere since."""
        found = await self._read(self._keys.session, text)
        if found is None or found.ends_ms <= now_ms:
            return None
        with translated(self._url):
            asked = [self._keys.logged_out(who) for who in (found.who, EVERYBODY)]
            since = [_moment(key, await self._call("GET", key)) for key in asked]
        return None if any(one >= found.created_ms for one in since) else found

    async def end(self, text: str) -> None:
        """Ends a session."""
        with translated(self._url):
            await self._call("DEL", self._keys.session(_digest(text)))

    async def end_all(self, who: str, now_ms: int) -> None:
        """Ends all sessions that a person (or EVERYBODY) has now."""
        with translated(self._url):
            await self._call("SET", self._keys.logged_out(who), now_ms, "PX", (LONGEST_SECONDS + 3600) * 1000)

    async def offer(self, session: Session, life_ms: int) -> str:
        """Stores what a link begins, for `life_ms`; returns the link's text, which is not stored."""
        return await self._keep(self._keys.portal_link, session, life_ms)

    async def offered(self, text: str) -> Session | None:
        """What a link begins; None if it was taken, or is too old."""
        return await self._read(self._keys.portal_link, text)

    async def take(self, text: str) -> Session | None:
        """As `offered`, to one caller alone: from then on the link is not valid any more."""
        with translated(self._url):
            return _decoded(await self._call("GETDEL", self._keys.portal_link(_digest(text))))

    async def _keep(self, key: Any, session: Session, life_ms: int) -> str:
        text = secrets.token_urlsafe(32)
        with translated(self._url):
            await self._call("SET", key(_digest(text)), encode_json(asdict(session)), "PX", max(1, life_ms))
        return text

    async def _read(self, key: Any, text: str) -> Session | None:
        with translated(self._url):
            return _decoded(await self._call("GET", key(_digest(text))))


def _moment(key: str, raw: bytes | None) -> int:
    """When somebody logged out; 0: never. So counts what was written by hand and is no time, or nobody could log in; it is logged."""
    at_ms = number(raw)
    if raw is not None and not at_ms:
        log.error("redis.unreadable", key=key, action="DEL it, and log out everywhere again")
    return at_ms


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _decoded(raw: bytes | None) -> Session | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Session)
    except msgspec.DecodeError:
        log.error("session.unreadable", action="log in again")
        return None
