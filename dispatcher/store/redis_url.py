"""Parses a Redis URL, once: redis-py and Celery both get the result, so that they connect in the same way.

An error says what is wrong and never quotes the URL: any part of it may be a piece of an unencoded password.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from dispatcher.errors import InvalidInput
from dispatcher.store.redis_url_options import read_options

SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORT = 6379
ENCODE = (
    "write user name and password percent-encoded: % as %25, / as %2F, ? as %3F, # as %23, @ as %40, : as %3A"
)

_HOST = re.compile(r"[\w.-]+")
_TLS = re.compile(r"rediss(\+cluster|\+sentinel)?://", re.IGNORECASE)
_BETWEEN_URLS = re.compile(r"[\s,]+(?=[a-z][a-z0-9+.-]*://|unix:/)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is, and how to connect to it."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    """Path of the unix socket."""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The options in the query, by redis-py's names and types."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a URL. Raises InvalidInput, which quotes none of it."""
        parts = split_url(text)
        if parts.scheme not in SCHEMES or not _has_slashes(parts.scheme, text):
            raise InvalidInput(
                "must start with redis://, rediss:// or unix://, or with redis+cluster:// or redis+sentinel://"
            )
        if parts.fragment or text.strip().endswith("#"):
            raise InvalidInput(f"holds a #; {ENCODE}")
        username, password = _user(parts)
        options = read_options(parts)
        db = options.pop("db", None)
        if parts.scheme == "unix":
            return cls("unix", "", 0, _socket(parts), db or 0, username, password, options)
        named = _db(parts.path)
        if None not in (db, named) and db != named:
            raise InvalidInput("names two databases, one in its path and one as ?db=")
        port = DEFAULT_PORT if parts.port is None else parts.port
        return cls(parts.scheme, _host(parts), port, "", db or named or 0, username, password, options)

    @property
    def plain(self) -> str:
        """The URL with user and password, and without options, as every client reads it."""
        if self.scheme == "unix":
            return f"unix://{self._login}{quote(self.path)}?db={self.db}"
        return f"{self.scheme}://{self._login}{self._address}/{self.db}"

    @property
    def celery(self) -> str:
        """The URL as kombu reads it."""
        if self.scheme == "unix":
            return f"redis+socket://{self._login}{quote(self.path)}?virtual_host={self.db}"
        return self.plain

    @property
    def tls(self) -> dict[str, Any]:
        """TLS options by the names of redis-py and kombu; empty without TLS. Verifies unless the URL says otherwise."""
        if self.scheme != "rediss":
            return {}
        found: dict[str, Any] = {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
            "ssl_password": "",  # or OpenSSL asks for one at the terminal
        }
        found |= {name: value for name, value in self.options.items() if name.startswith("ssl_")}
        if found["ssl_cert_reqs"] is ssl.CERT_NONE:
            found["ssl_check_hostname"] = False
        return found

    @property
    def others(self) -> dict[str, Any]:
        """The options that do not concern TLS."""
        return {name: value for name, value in self.options.items() if not name.startswith("ssl_")}

    def check_files(self) -> None:
        """Reads the certificates and keys that the options name. Raises InvalidInput if they cannot be used."""
        tls, context = self.tls, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if "ssl_ca_path" in tls:
                os.listdir(tls["ssl_ca_path"])  # OpenSSL itself reads the folder only when it needs it
            if "ssl_ca_certs" in tls:
                context.load_verify_locations(tls["ssl_ca_certs"])
        except OSError as error:
            raise InvalidInput(f"ssl_ca_certs or ssl_ca_path cannot be used: {_reason(error)}") from None
        try:
            if "ssl_certfile" in tls:
                context.load_cert_chain(
                    tls["ssl_certfile"], tls.get("ssl_keyfile"), lambda: tls["ssl_password"]
                )
        except OSError as error:
            raise InvalidInput(f"ssl_certfile or ssl_keyfile cannot be used: {_reason(error)}") from None

    @property
    def _login(self) -> str:
        return f"{quote(self.username, '')}:{quote(self.password, '')}@" if self.password else ""

    @property
    def _address(self) -> str:
        return (
            f"[{self.host.replace('%', '%25')}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}"
        )


def with_authorities(url: str, ca_file: str | None) -> str:
    """Adds `ssl_ca_certs` to each rediss:// URL that has none, of whichever topology; returns any other as it is."""
    urls = urls_of(url)
    if not ca_file or not urls:
        return url
    if len(urls) > 1:
        return ",".join(with_authorities(one, ca_file) for one in urls)
    (one,) = urls
    if not _TLS.match(one) or "ssl_ca_certs" in dict(parse_qsl(one.partition("?")[2])):
        return url
    return f"{one}{'&' if '?' in one else '?'}ssl_ca_certs={quote(ca_file, '')}"


def urls_of(text: str) -> list[str]:
    """The URLs of a list: blanks or commas separate them. A comma that no URL follows belongs to a password."""
    return [url for url in _BETWEEN_URLS.split(text.strip(" \t\r\n,")) if url]


def split_url(text: str, *, at_in_path: bool = False) -> SplitResult:
    """`urlsplit` for URLs that may hold a password. Raises InvalidInput, which quotes none of it.

    An @ after the host is refused, because it most often ends a password with a slash in it; `at_in_path` allows it.
    """
    if not isinstance(text, str):
        raise InvalidInput(
            f"is {text!r}, not text: is DISPATCHER_REDIS_URL set?" if text is None else "is not text"
        )
    url = text.strip()
    if not url.isprintable() or " " in url:
        raise InvalidInput(f"holds a blank or a control character; {ENCODE}")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes the URL
        raise InvalidInput(f"is no URL; {ENCODE}") from None
    at_behind = "@" in parts.path + parts.query + parts.fragment
    try:
        port = parts.port
    except ValueError:
        if at_behind or parts.fragment:
            raise InvalidInput(f"is no URL; {ENCODE}") from None
        raise InvalidInput("has a port that is no number from 1 to 65535") from None
    if port == 0:
        raise InvalidInput("names port 0")
    if at_behind and not at_in_path:
        raise InvalidInput(f"has an @ behind its host; {ENCODE}")
    return parts


def _has_slashes(scheme: str, text: str) -> bool:
    """Whether two slashes follow the scheme; a socket's URL needs none, because it names no host."""
    return scheme == "unix" or text.strip()[len(scheme) :].startswith("://")


def _user(parts: SplitResult) -> tuple[str, str]:
    try:
        username, password = (
            unquote(part or "", errors="strict") for part in (parts.username, parts.password)
        )
    except UnicodeDecodeError:
        raise InvalidInput("has a user or password whose percent-encoding is no UTF-8") from None
    if username and not password:
        raise InvalidInput(
            "names a user and no password: write :PASSWORD@ for the default user, or USER:PASSWORD@"
        )
    return username, password


def _host(parts: SplitResult) -> str:
    host = unquote(parts.hostname or "localhost")
    if "[" in parts.netloc.rpartition("@")[2]:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise InvalidInput("has brackets that hold no IPv6 address") from None
    if "," in host:
        raise InvalidInput(
            "names several hosts: write redis+cluster:// or redis+sentinel://, or a list of whole URLs"
        )
    if not _HOST.fullmatch(host):
        raise InvalidInput(f"names no host that there can be; {ENCODE}")
    return host


def _socket(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or path in ("", "/") or not path.isprintable():
        raise InvalidInput(f"names no socket: write unix:///path, with three slashes; {ENCODE}")
    return path


def _db(path: str) -> int | None:
    named = path.strip("/")
    if not named:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", named):
        raise InvalidInput(f"must end in the number of a database, such as /0, or in nothing; {ENCODE}")
    return int(named)


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
