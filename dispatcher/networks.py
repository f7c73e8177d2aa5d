"""Addresses as numbers and as texts. Pure."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def as_address(text: str) -> Address | None:
    """The address that a text is, without its zone (fe80::1%eth0); None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ipaddress.IPv6Address(int(address)) if address.version == 6 else address


def text_of(address: Address) -> str:
    """An address as it is connected to and written in URLs: the same in every version of Python."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is None:
        return str(address)
    return f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}"  # 3.13 writes ::ffff:192.0.2.1
