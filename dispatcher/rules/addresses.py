"""Which URLs and addresses a callback may go to. No look-ups, no sockets."""

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dispatcher.errors import InvalidInput
from dispatcher.rules.networks import (
    Address,
    Network,
    Prefixes,
    all_in,
    as_address,
    as_network,
    internal_use,
    is_public,
    meant_by,
    nat64_prefix,
    text_of,
)

MAX_URL_LENGTH = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]*))?")
"""Host and port, in the forms that every URL parser splits alike."""

_NO_PORT = (
    "callback URL cannot be read: its port is no number from 1 to 65535 (an IPv6 address needs brackets)"
)
_NO_ADDRESS = "callback URL cannot be read: what stands in brackets is no IPv6 address"
_UNSAFE = re.compile(r'[ \\"<>^`{|}]')


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A parsed callback URL. The checks, the connection and the Host header all use it, so they cannot disagree."""

    url: str = field(repr=False)
    """The given URL; a host that is not ASCII is in IDNA form."""
    scheme: str
    host: str
    """A name in IDNA form, lower case, without a trailing dot; or an address in canonical form."""
    port: int
    target: str = field(repr=False)
    """Path and query, unchanged."""
    address: Address | None
    """The host as an address, if it is one."""
    origin: str
    """scheme://host:port; part of the endpoint's name."""

    @property
    def authority(self) -> str:
        """Value of the Host header (RFC 9110 §7.2)."""
        host = _in_url(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@functools.lru_cache(maxsize=1024)  # bounded: customers choose the URLs
def parse_callback_url(url: str, *, allow_http: bool = False) -> CallbackUrl:
    """Parses a callback URL. Raises InvalidInput with the reason and what to do.

    Strict: refuses what urllib, httpx and browsers (WHATWG) do not all parse alike.
    """
    scheme, authority, target = _divided(url)
    if scheme == "http" and not allow_http:
        raise InvalidInput("callback URL must be https (DISPATCHER_ALLOW_HTTP=true allows http)")
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        raise InvalidInput(_NO_ADDRESS if re.search(r"[\[\]]", authority) else _NO_PORT)
    port = int(found["port"] or DEFAULT_PORTS[scheme])
    if port == 0:
        raise InvalidInput("callback URL has port 0")
    if port > 65_535:
        raise InvalidInput(_NO_PORT)
    host, address = _host(found["host"])
    if not authority.isascii():  # other parsers know fewer of its spellings than browsers do
        url = f"{scheme}://{_in_url(host)}{authority[len(found['host']) :]}{target}"
    return CallbackUrl(url, scheme, host, port, target, address, f"{scheme}://{_in_url(host)}:{port}")


def without_query(url: str) -> str:
    """A callback URL fit for display: without its query, which often contains tokens."""
    before, question_mark, _ = url.partition("?")
    return f"{before}?…" if question_mark else before


def without_userinfo(url: str) -> tuple[str, str]:
    """Splits a proxy URL into the URL without user name and password, and these."""
    before, at, after = url.rpartition("@")
    scheme, slashes, userinfo = before.partition("://")
    return (f"{scheme}{slashes}{after}", userinfo) if at else (url, "")


def _divided(url: str) -> tuple[str, str, str]:
    """Scheme, authority, and path with query."""
    if len(url) > MAX_URL_LENGTH:
        raise InvalidInput(f"callback URL is {len(url)} characters long; the limit is {MAX_URL_LENGTH}")
    if not url.isascii() and not _is_utf8(url):
        raise InvalidInput("callback URL is not valid Unicode")
    if not url.isprintable() or _UNSAFE.search(url):
        raise InvalidInput("callback URL has a blank, control or unsafe character; percent-encode it")
    scheme, _, rest = url.partition(":")
    if scheme.lower() not in DEFAULT_PORTS:
        raise InvalidInput("callback URL must start with https://")
    if "#" in url:
        raise InvalidInput("callback URL must not have a fragment (#…)")
    authority = re.split("[/?]", rest[2:], maxsplit=1)[0] if rest.startswith("//") else ""
    if "@" in authority:
        raise InvalidInput("callback URL must not carry a user name or password")
    if not authority.partition(":")[0]:
        raise InvalidInput("callback URL has no host")
    return scheme.lower(), authority, rest[2 + len(authority) :]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host(text: str) -> tuple[str, Address | None]:
    """Parses a host into a name or an address. Raises InvalidInput."""
    if text.startswith("["):
        address = as_address(text[1:-1])
        if not isinstance(address, ipaddress.IPv6Address):
            raise InvalidInput(_NO_ADDRESS)
        return text_of(address), address
    ascii_text = _in_ascii(text)
    name = ascii_text.removesuffix(".")
    if _ends_in_a_number(name):
        address = as_address(ascii_text)
        if address is None:
            raise InvalidInput(
                "callback URL's host ends in a number and is no IPv4 address in its usual spelling, such as 192.0.2.1"
            )
        return text_of(address), address
    if not _is_name(name):
        raise InvalidInput("callback URL's host is not a valid name")
    return name, None


def _in_ascii(host: str) -> str:
    if host.isascii() and "xn--" not in host.lower():
        return host.lower()
    import idna  # here, because producers may not have it installed

    try:
        return idna.encode(host, uts46=True).decode().lower()
    except idna.IDNAError as error:
        raise InvalidInput(f"callback URL's host is not a valid name: {error}") from None


def _ends_in_a_number(name: str) -> bool:
    """Whether browsers would take it for an IPv4 address, such as 127.1, 2130706433 or 0x7f.1 (WHATWG URL, "ends in a number")."""
    last = name.rpartition(".")[2]
    return (last.isascii() and last.isdigit()) or re.fullmatch("0x[0-9a-f]*", last) is not None


def _is_name(host: str) -> bool:
    return len(host) <= 253 and all(
        0 < len(label) <= 63 and label.replace("-", "a").replace("_", "a").isalnum()
        for label in host.split(".")
    )


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which addresses and ports may be connected to."""

    allowed_networks: tuple[Network, ...] = ()
    allowed_ports: frozenset[int] = frozenset()
    denied_networks: tuple[Network, ...] = ()
    nat64_prefixes: Prefixes = ()
    """In addition to the well-known one."""

    @classmethod
    def of(
        cls,
        networks: Iterable[str] = (),
        ports: Iterable[int] = (),
        denied: Iterable[str] = (),
        nat64: Iterable[str] = (),
    ) -> "AddressPolicy":
        """Builds a policy from the settings' texts. Raises ValueError for an invalid network or NAT64 prefix."""
        return cls(
            tuple(as_network(n) for n in networks),
            frozenset(ports),
            tuple(as_network(n) for n in denied),
            tuple(nat64_prefix(p) for p in nat64),
        )

    def port_refusal(self, port: int) -> str | None:
        """Why connections to this port are refused at any address; None if they are allowed."""
        if self.allowed_ports and port not in self.allowed_ports:
            return f"port {port} is not in DISPATCHER_ALLOWED_PORTS"
        return None

    def refusal(self, host: str, port: int) -> str | None:
        """Why connections to this numeric address and port are refused; None if they are allowed."""
        address = as_address(host)
        if address is None:
            return f"{host!r} is no address"
        return self.port_refusal(port) or self._denial(address) or self._address_refusal(address)

    def _denial(self, address: Address) -> str | None:
        """Denied networks win over allowed ones, also for an IPv4 address inside an IPv6 one."""
        if not self.denied_networks:
            return None
        for one in all_in(address, self.nat64_prefixes):
            for network in self.denied_networks:
                if one in network:
                    return f"{one} is in DISPATCHER_DENIED_NETWORKS ({network})"
        return None

    def _address_refusal(self, address: Address) -> str | None:
        meant = meant_by(address, self.nat64_prefixes)
        if meant is None:
            return f"{address} has a prefix of NAT64, but no IPv4 address inside (RFC 6052 §2.2)"
        if is_public(meant) or any(meant in network for network in self.allowed_networks):
            return None
        whose = internal_use(meant)
        what = f"is for internal use only: {whose}" if whose else "is not a public address"
        return f"{meant} {what} (DISPATCHER_ALLOWED_NETWORKS={meant} would allow it)"
