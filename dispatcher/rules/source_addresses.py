"""Reads the local addresses that connections to receivers come from. No I/O."""

from collections.abc import Iterable

from dispatcher.rules.networks import as_address, text_of


def source_addresses(texts: Iterable[str]) -> dict[int, str]:
    """The addresses by IP version, at most one of each. Raises ValueError."""
    found: dict[int, str] = {}
    for text in texts:
        address = None if "%" in text else as_address(text)
        if address is None or address.is_unspecified or address.is_multicast:
            raise ValueError(
                f"{text!r} is no address to send from; write one of IPv4, of IPv6, or both: 192.0.2.7,2001:db8::7"
            )
        if address.version in found:
            raise ValueError(
                f"has two addresses of IPv{address.version}; it may have one of IPv4 and one of IPv6"
            )
        found[address.version] = text_of(address)
    return found
