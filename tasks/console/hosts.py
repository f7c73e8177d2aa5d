"""By which names the console may be reached.

A page of another site that has its own name lead to this machine (DNS rebinding) is of the same origin as the console for a
browser. It does not have the console's cookies, but what a proxy at a listed address says would be believed.
"""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


def is_ours(host: str, console_url: str | None) -> bool:
    """Whether a Host header (RFC 9110 §7.2) names this machine's loopback, at any port, or the host of the console's URL."""
    found = _HOST.fullmatch(host)
    if not found:
        return False
    name = found[1].lower().strip("[]").removesuffix(".")
    return name == "localhost" or _is_loopback(name) or bool(name and name == _name_of(console_url))


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _name_of(console_url: str | None) -> str:
    return (urlsplit(console_url or "").hostname or "").removesuffix(".")
