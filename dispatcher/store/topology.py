"""What DISPATCHER_REDIS_URL may say: one Redis server, several, a cluster, or a primary that sentinels know.

An error says what is wrong and never quotes the URL, as in redis_url.py.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Self
from urllib.parse import quote, unquote

from dispatcher.errors import InvalidInput
from dispatcher.store.redis_url import ENCODE, SCHEMES, RedisUrl, split_url, urls_of

SENTINEL_PORT = 26379
OF_SENTINELS = ("sentinel_username", "sentinel_password")
"""Options of a Sentinel URL that concern the sentinels alone."""

_HOSTS_URL = re.compile(r"(rediss?)\+(cluster|sentinel)://([^/?#]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_MEANT = re.compile(r"(?:(?:redis|valkey)(s?)[-+_.]?)?(cluster|sentinel)?")
"""Schemes that others use, or that come to mind, for those of ours."""
_HOSTS = {None: "HOST:PORT", "cluster": "HOST:PORT,HOST:PORT", "sentinel": "HOST:PORT,HOST:PORT/NAME"}
"""What comes behind a scheme, by what it names."""
_WITHOUT_PORT = re.compile(r"(\[[^]]*\]|[^:]*):?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_FOR_BOTH = re.compile(r"(ssl_|socket_)")
"""Options that sentinels and servers share start so."""


class Kind(StrEnum):
    """How an installation's Redis servers belong together."""

    ONE = "one server"
    SEVERAL = "several servers"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class Topology:
    """Which Redis servers an installation has, and how to find them."""

    kind: Kind
    urls: tuple[str, ...] = field(repr=False)
    """As RedisUrl.parse takes them, with login and options: of the servers, of a cluster's first nodes, of the sentinels."""
    server: RedisUrl
    """The first server; with sentinels the primary's login, database and options, without host and port."""
    master: str = ""
    """The primary's name, as the sentinels know it."""

    @property
    def db(self) -> int:
        """The number of the database."""
        return self.server.db

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a URL, or a list of URLs. Raises InvalidInput, which quotes none of it."""
        urls = urls_of(text) if isinstance(text, str) else []
        for url in urls:
            _check_scheme(url)
        if len(urls) > 1:
            return cls(Kind.SEVERAL, tuple(urls), _list(urls)[0])
        if not urls:
            return cls(Kind.ONE, (text,), RedisUrl.parse(text))
        hosts = hosts_url(urls[0])
        if hosts is None:
            return cls(Kind.ONE, (urls[0],), RedisUrl.parse(urls[0]))
        if hosts.kind is Kind.CLUSTER:
            return cls(Kind.CLUSTER, *_cluster(hosts))
        return cls(Kind.SENTINEL, *_sentinel(hosts))

    @property
    def described(self) -> str:
        """The topology in words, for users."""
        match self.kind:
            case Kind.ONE:
                return "one server"
            case Kind.SEVERAL:
                return f"{len(self.urls)} servers: partition i lies on server i modulo {len(self.urls)}"
            case Kind.CLUSTER:
                return f"a cluster, found through {_counted(len(self.urls), 'node')}"
            case Kind.SENTINEL:
                return f"the primary {self.master}, found through {_counted(len(self.urls), 'sentinel')}"

    def url_of_node(self, host: str, port: int) -> str:
        """The URL of a cluster's node, with the login and options of the first one."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        parts = split_url(self.urls[0])
        login = parts.netloc.rpartition("@")[0]
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{login and login + '@'}{address}{parts.path}{query}"

    def check_files(self) -> None:
        """Reads the certificates and keys that the options name. Raises InvalidInput if they cannot be used."""
        for url in self.urls:
            RedisUrl.parse(url).check_files()


class HostsUrl(NamedTuple):
    """The parts of a URL that names several hosts; none is decoded or checked yet."""

    scheme: str
    kind: Kind
    login: str
    """With its @, or empty."""
    hosts: list[str]
    path: str
    query: str
    """With its question mark, or empty."""


def hosts_url(url: str) -> HostsUrl | None:
    """The parts of a redis+cluster:// or redis+sentinel:// URL; None for any other."""
    found = _HOSTS_URL.fullmatch(url.strip())
    if not found:
        return None
    scheme, kind, authority, path, query = found.groups()
    login, at, hosts = authority.rpartition("@")
    return HostsUrl(
        scheme.lower(),
        Kind(kind.lower()),
        login + at,
        [host.strip() for host in hosts.split(",")],
        path,
        query,
    )


def safe_url(url: str) -> str:
    """A URL without user name, password and query, for error texts and logs; shows nothing of an invalid one.

    Of a list of Redis URLs it shows each. Without a URL, as of a client that a caller made, it says so.
    """
    if not url:
        return "its client's address"
    try:
        if isinstance(url, str) and len(urls := urls_of(url)) > 1:
            return ", ".join(map(_safe, urls))
        return _safe(url)
    except InvalidInput:
        return "the URL that is set"


def _safe(url: str) -> str:
    hosts = hosts_url(url) if isinstance(url, str) else None
    if hosts is None:
        parts = split_url(url)
        return f"{parts.scheme}://{_address(url)}{parts.path}"
    split_url(f"{hosts.scheme}://{hosts.login}h{hosts.path}{hosts.query}")  # for its checks
    shown = ",".join(_address(f"{hosts.scheme}://{host}{hosts.path}") for host in hosts.hosts)
    return f"{hosts.scheme}+{hosts.kind}://{shown}{hosts.path}"


def _address(url: str) -> str:
    parts = split_url(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}{f':{parts.port}' if parts.port else ''}"


def _check_scheme(url: str) -> None:
    """Raises InvalidInput for a scheme that is meant for one of ours; the text says which one to write."""
    scheme, slashes, _ = url.lower().partition("://")
    if scheme in SCHEMES or not slashes or hosts_url(url):
        return
    if found := _MEANT.fullmatch(scheme):
        known = f"redis{found[1] or ''}{f'+{found[2]}' if found[2] else ''}://"
        raise InvalidInput(f"must start with {known}: write {known}{_HOSTS[found[2]]}")
    if "+" in scheme and scheme.startswith("redis"):
        raise InvalidInput(
            "must start with redis://, rediss:// or unix://, or with redis+cluster:// or redis+sentinel:// "
            "(with TLS: rediss+cluster://, rediss+sentinel://)"
        )


def _list(urls: list[str]) -> list[RedisUrl]:
    """The servers of a list."""
    found: list[RedisUrl] = []
    for number, url in enumerate(urls, 1):
        if hosts_url(url):
            raise InvalidInput(
                "is a list with a cluster or Sentinel in it: a cluster, or Sentinel, is one URL with all its hosts in it"
            )
        try:
            found.append(RedisUrl.parse(url))
        except InvalidInput as error:
            raise InvalidInput(f"is a list of {len(urls)}, whose number {number} {error}") from None
    first: dict[tuple[object, ...], int] = {}
    for number, one in enumerate(found, 1):
        same = first.setdefault((one.host, one.port, one.path, one.db), number)
        if same < number:
            raise InvalidInput(
                f"is a list with one server in it twice, as number {same} and number {number}: name each server once"
            )
    return found


def _cluster(given: HostsUrl) -> tuple[tuple[str, ...], RedisUrl]:
    urls = [f"{given.scheme}://{given.login}{host}{given.path}{given.query}" for host in given.hosts]
    found = _servers(given, urls)
    if found[0].db:
        raise InvalidInput("names a database, and a cluster has none but 0: leave it out")
    return tuple(urls), found[0]


def _sentinel(given: HostsUrl) -> tuple[tuple[str, ...], RedisUrl, str]:
    parts = split_url(f"{given.scheme}://h{given.path}{given.query}")
    if parts.fragment or given.query.endswith("#"):
        raise InvalidInput(f"holds a #; {ENCODE}")
    name, _, db = given.path.removeprefix("/").partition("/")
    query, own = _own_options(given.query)
    server = RedisUrl.parse(f"{given.scheme}://{given.login}primary/{db}{query}")
    if not _NAME.fullmatch(name := unquote(name)):
        raise InvalidInput(
            "must name the primary behind the hosts, as the sentinels know it, such as /mymaster: letters, digits "
            f"and any of . _ - are allowed; {ENCODE}"
        )
    shared = "&".join(one for one in query[1:].split("&") if _FOR_BOTH.match(one))
    login = _login(own)
    hosts = [_with_port(host) for host in given.hosts]
    urls = [f"{given.scheme}://{login}{host}/0{'?' if shared else ''}{shared}" for host in hosts]
    _servers(given, urls)
    return tuple(urls), server, name


def _servers(given: HostsUrl, urls: list[str]) -> list[RedisUrl]:
    """The hosts of a URL, checked."""
    found = [RedisUrl.parse(url) for url in urls]
    if not all(given.hosts):
        raise InvalidInput("names no host, or has a comma too many between its hosts")
    if len({(one.host, one.port) for one in found}) < len(found):
        raise InvalidInput("names one host twice")
    return found


def _with_port(host: str) -> str:
    found = _WITHOUT_PORT.fullmatch(host)
    return f"{found[1]}:{SENTINEL_PORT}" if found and found[1] else host


def _own_options(query: str) -> tuple[str, dict[str, str]]:
    """The query without the options that concern the sentinels alone, and these."""
    mark, others, own = query[:1], [], {}
    for one in query[1:].split("&"):
        name, _, value = one.partition("=")
        if name not in OF_SENTINELS:
            others.append(one)
            continue
        if name in own:
            raise InvalidInput(f"has the option {name} twice")
        try:
            own[name] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidInput(f"has the option {name}, whose percent-encoding is no UTF-8") from None
        if not value:
            raise InvalidInput(f"has the option {name}, which is empty")
    rest = "&".join(others)
    return mark + rest if rest else "", own


def _login(own: dict[str, str]) -> str:
    """The sentinels' own login, with its @, or empty."""
    user, password = (own.get(name, "") for name in OF_SENTINELS)
    if user and not password:
        raise InvalidInput("has the option sentinel_username without sentinel_password")
    return f"{quote(user, '')}:{quote(password, '')}@" if password else ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
