"""Which URLs and which addresses a callback may go to. Pure: no look-up, no socket."""

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import idna

from dispatcher.errors import InvalidInput

MAX_URL_LENGTH = 2048

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4_SPECIAL = [ipaddress.ip_network(n) for n in ("192.0.0.0/24", "192.88.99.0/24")]
_V6_GLOBAL = ipaddress.ip_network("2000::/3")
_V6_SPECIAL = [ipaddress.ip_network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A callback URL that was looked at: the URL itself and the origin that names its endpoint."""

    url: str
    origin: str
    """scheme://host:port, lower case, host in IDNA form, port explicit."""


@functools.lru_cache(maxsize=1024)  # customers choose the URLs: few are kept
def parse_callback_url(url: str, *, allow_http: bool = False) -> CallbackUrl:
    """Checks a callback URL. Raises InvalidInput with the reason and what to do."""
    if len(url) > MAX_URL_LENGTH:
        raise InvalidInput(f"callback URL is {len(url)} characters long; the limit is {MAX_URL_LENGTH}")
    if not url.isascii() and not _is_utf8(url):
        raise InvalidInput("callback URL is not valid Unicode")
    if any(c in ' \\"<>^`{|}' or not c.isprintable() for c in url):
        raise InvalidInput("callback URL has a blank, control or unsafe character; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput("callback URL cannot be read: its host or port is none") from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise InvalidInput("callback URL must start with https://")
    if scheme == "http" and not allow_http:
        raise InvalidInput("callback URL must be https (DISPATCHER_ALLOW_HTTP=true allows http)")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("callback URL must not carry a user name or password")
    if "#" in url:
        raise InvalidInput("callback URL must not have a fragment (#…)")
    if port == 0:
        raise InvalidInput("callback URL has port 0")
    host = _host(parts.hostname or "")
    if not parts.netloc.isascii():  # httpx knows fewer of its spellings than browsers do
        url = url.replace(parts.netloc, f"{host}:{port}" if port else host, 1)
    return CallbackUrl(url, f"{scheme}://{host}:{port or (443 if scheme == 'https' else 80)}")


def without_query(url: str) -> str:
    """A callback URL as it may be shown: queries often hold tokens."""
    before, question_mark, _ = url.partition("?")
    return f"{before}?…" if question_mark else before


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _host(host: str) -> str:
    if not host:
        raise InvalidInput("callback URL has no host")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return f"[{address}]" if address.version == 6 else str(address)
    try:
        if not host.isascii() or "xn--" in host.lower():
            return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise InvalidInput(f"callback URL's host is not a valid name: {error}") from None
    if not _is_name(host):
        raise InvalidInput("callback URL's host is not a valid name")
    return host.lower()


def _is_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(
        0 < len(label) <= 63 and label.replace("-", "a").replace("_", "a").isalnum() for label in labels
    )


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet.

    Stricter than `is_global`, which lets multicast, NAT64 and 6to4 through: IPv4-mapped addresses
    are unwrapped first; IPv6 counts only inside 2000::/3, less its special ranges (IANA registries).
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        return address in _V6_GLOBAL and not any(address in network for network in _V6_SPECIAL)
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _V4_SPECIAL)
    )


def is_address(host: str) -> bool:
    """Whether a host is an address in its usual spelling."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_odd_address(host: str) -> bool:
    """Whether a host is an address in a spelling that only some resolvers take for one.

    Such as 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1 or 127.0.0.1. (WHATWG URL, "ends in a number").
    """
    last = host.rstrip(".").rpartition(".")[2].lower()
    if not (last.isascii() and last.isdigit()) and not re.fullmatch(r"0x[0-9a-f]*", last):
        return False
    return not is_address(host)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which addresses and ports may be connected to."""

    allowed_networks: tuple[Network, ...] = ()
    allowed_ports: frozenset[int] = frozenset()

    @classmethod
    def of(cls, networks: Iterable[str] = (), ports: Iterable[int] = ()) -> "AddressPolicy":
        """From the settings' texts. Raises ValueError for what is no network."""
        return cls(tuple(ipaddress.ip_network(n) for n in networks), frozenset(ports))

    def port_refusal(self, port: int) -> str | None:
        """Why this port may not be connected to, wherever; None if it may."""
        if self.allowed_ports and port not in self.allowed_ports:
            return f"port {port} is not in DISPATCHER_ALLOWED_PORTS"
        return None

    def refusal(self, host: str, port: int) -> str | None:
        """Why this address (numeric) and port may not be connected to; None if they may."""
        refusal = self.port_refusal(port)
        if refusal:
            return refusal
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in n for n in self.allowed_networks if n.version == address.version):
            return None
        if is_public(address):
            return None
        return f"{address} is not a public address (DISPATCHER_ALLOWED_NETWORKS={address} would allow it)"
