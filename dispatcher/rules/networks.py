"""Classifies addresses: public or not, and which IPv4 addresses an IPv6 address contains. No I/O.

The tables are our own, because the answers of `ipaddress.is_global` change between Python versions.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Prefixes = tuple[ipaddress.IPv6Network, ...]

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The well-known prefix (RFC 6052 §2.1)."""

_NAT64_LENGTHS = (32, 40, 48, 56, 64, 96)

_V4_SPECIAL = [
    ipaddress.IPv4Network(n)
    for n in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # also 100.100.100.200, Alibaba's metadata
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # also 192.0.0.192, Oracle's metadata
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112: anycast, often answered inside the operator's own network
        "192.52.193.0/24",  # multicast relays (AMT)
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
"""IANA's registry of special-purpose IPv4 addresses (RFC 6890), multicast and reserved space."""

_V6_UNICAST = ipaddress.IPv6Network("2000::/3")
_V6_SPECIAL = [
    ipaddress.IPv6Network(n)
    for n in (
        "2001::/23",  # Teredo, benchmarks, ORCHID and the other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",
    )
]
"""The part of IANA's registry of special-purpose IPv6 addresses that lies within 2000::/3."""

_INTERNAL: dict[Network, str] = {
    ipaddress.ip_network(network): whose
    for whose, networks in {
        "Azure's host (WireServer)": "168.63.129.16",
        "Google Kubernetes Engine's default range of services": "34.118.224.0/20",
        "Google Cloud's private access to APIs": "199.36.153.4/30 199.36.153.8/30 2600:2d00:2:1000::/64 2600:2d00:2:2000::/64",
        "IBM Cloud's private endpoints": "161.26.0.0/16 166.8.0.0/14",
        "Tencent Cloud's internal name servers": "183.60.82.98 183.60.83.19",
    }.items()
    for network in networks.split()
}
"""Addresses in public ranges that reach a cloud provider's internal services from inside its network."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_LOW_32 = [
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible
    _MAPPED,
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    NAT64,
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local NAT64 (RFC 8215), most of it with prefixes of 96 bits
]
"""Networks whose last 32 bits are an IPv4 address."""


def as_address(text: str) -> Address | None:
    """Parses an address and drops its zone (fe80::1%eth0); None if the text is not an address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ipaddress.IPv6Address(int(address)) if address.version == 6 else address


def text_of(address: Address) -> str:
    """An address as text for connections and URLs, the same in every Python version."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is None:
        return str(address)
    return f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}"  # 3.13 writes ::ffff:192.0.2.1


def as_network(text: str) -> Network:
    """Parses a network; one of IPv4-mapped addresses becomes the IPv4 network. Raises ValueError."""
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def nat64_prefix(text: str) -> ipaddress.IPv6Network:
    """Parses a NAT64 prefix (RFC 6052 §2.2). Raises ValueError."""
    network = ipaddress.IPv6Network(text)
    if network.prefixlen not in _NAT64_LENGTHS:
        raise ValueError(f"{text} is no prefix of NAT64: its length is 32, 40, 48, 56, 64 or 96")
    if _octet_u(network.network_address):
        raise ValueError(f"{text} is no prefix of NAT64: bits 64 to 71 must be 0")
    return network


def meant_by(address: Address, prefixes: Prefixes = ()) -> Address | None:
    """The address that a connection really reaches: for IPv4-mapped and NAT64 addresses the IPv4 address inside.

    `prefixes` are NAT64 prefixes in addition to the well-known one. None if the address has such a prefix but is
    not a valid translated address (its bits 64 to 71 are not 0).
    """
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    found = [prefix for prefix in (NAT64, *prefixes) if address in prefix]
    if not found:
        return address
    longest = max(found, key=lambda prefix: prefix.prefixlen)
    return None if _octet_u(address) else _translated(address, longest)


def all_in(address: Address, prefixes: Prefixes = ()) -> list[Address]:
    """The address and every IPv4 address it may contain, by any tunnel or translation."""
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    found: list[Address | None] = [_translated(address, prefix) for prefix in prefixes if address in prefix]
    found += [address.sixtofour, *(address.teredo or ())]
    compatible = int(address) > 1 and any(address in network for network in _LOW_32)  # not :: and ::1
    if compatible or _is_isatap(address):
        found.append(_last_32_bits(address))
    return [address, *(one for one in found if one is not None)]


def internal_use(address: Address) -> str | None:
    """Names the internal service at a publicly numbered address; None if there is none."""
    return next((whose for network, whose in _INTERNAL.items() if address in network), None)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet.

    IPv4-mapped and NAT64 addresses are judged by the IPv4 address inside. Other IPv6 addresses are public only
    within 2000::/3, without its special ranges and tunnels (6to4, Teredo, ISATAP).
    """
    plain = meant_by(address)
    if plain is None or internal_use(plain):
        return False
    if isinstance(plain, ipaddress.IPv4Address):
        return not any(plain in network for network in _V4_SPECIAL)
    special = any(plain in network for network in _V6_SPECIAL)
    return plain in _V6_UNICAST and not special and not _is_isatap(plain)


def _translated(address: ipaddress.IPv6Address, prefix: ipaddress.IPv6Network) -> ipaddress.IPv4Address:
    """The IPv4 address after the prefix, skipping bits 64 to 71; the suffix is ignored (RFC 6052 §2.2)."""
    if prefix.prefixlen == 96:
        return _last_32_bits(address)
    number = int(address)
    without_u = (number >> 64 << 56) | (number & (1 << 56) - 1)
    return ipaddress.IPv4Address((without_u >> 88 - prefix.prefixlen) & 0xFFFFFFFF)


def _octet_u(address: ipaddress.IPv6Address) -> int:
    return int(address) >> 56 & 0xFF


def _last_32_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    """Whether its interface identifier is ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d (RFC 5214 §6.1)."""
    return (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE
