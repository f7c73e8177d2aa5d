"""The options in the query of a Redis URL: which there are, and what each may be."""

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from dispatcher.errors import InvalidInput


def read_options(parts: SplitResult) -> dict[str, Any]:
    """The options by redis-py's names and types. Raises InvalidInput, which quotes none of the URL."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _KNOWN:
            raise InvalidInput(f"has an option that is not known; known are {', '.join(_KNOWN)}")
        read, what = _KNOWN[name]
        if name in found:
            raise InvalidInput(f"has the option {name} twice")
        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise InvalidInput(f"has the option {name}, which goes with rediss:// only")
        if name == "socket_keepalive" and parts.scheme == "unix":
            raise InvalidInput(f"has the option {name}, which does not go with unix://")
        try:
            found[name] = read(value)
        except (ValueError, KeyError):
            raise InvalidInput(f"has the option {name}, which must be {what}") from None
    if "ssl_keyfile" in found and "ssl_certfile" not in found:
        raise InvalidInput("has the option ssl_keyfile without ssl_certfile")
    return found


def _text(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):  # CLIENT SETNAME takes no blanks
        raise ValueError
    return value


def _count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError
    return int(value)


def _positive(value: str) -> int:
    if not (count := _count(value)):
        raise ValueError
    return count


def _seconds(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", value) or not float(value):
        raise ValueError
    return float(value)


def _switch(value: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]


def _cert_reqs(value: str) -> ssl.VerifyMode:
    """`optional` is `required` for a client (Python's ssl says so)."""
    word = value.lower().removeprefix("cert_")
    return {"none": ssl.CERT_NONE, "optional": ssl.CERT_REQUIRED, "required": ssl.CERT_REQUIRED}[word]


def _version(value: str) -> ssl.TLSVersion:
    known = {"771": ssl.TLSVersion.TLSv1_2, "772": ssl.TLSVersion.TLSv1_3}
    return (known | {"1.2": known["771"], "1.3": known["772"]})[value]


def _flags(value: str) -> list[ssl.VerifyFlags]:
    return [ssl.VerifyFlags[name] for name in value.strip("[]").replace(" ", "").split(",")]


_KNOWN: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "db": (_count, "a number"),
    "client_name": (_name, "a name without blanks"),
    "socket_timeout": (_seconds, "seconds"),
    "socket_connect_timeout": (_seconds, "seconds"),
    "socket_keepalive": (_switch, "true or false"),
    "health_check_interval": (_count, "seconds, a whole number"),
    "max_connections": (_positive, "a number above 0"),
    "ssl_cert_reqs": (_cert_reqs, "required, optional or none"),
    "ssl_check_hostname": (_switch, "true or false"),
    "ssl_ca_certs": (_text, "a file"),
    "ssl_ca_path": (_text, "a folder"),
    "ssl_certfile": (_text, "a file"),
    "ssl_keyfile": (_text, "a file"),
    "ssl_password": (_text, "a password"),
    "ssl_min_version": (_version, "1.2 or 1.3"),
    "ssl_include_verify_flags": (_flags, "names of ssl.VerifyFlags"),
    "ssl_exclude_verify_flags": (_flags, "names of ssl.VerifyFlags"),
}
