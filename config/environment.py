"""Tells settings from other variables with the same prefix, in the environment and in `.env`; finds broken lines of `.env`."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from dotenv.parser import parse_stream

PREFIX = "DISPATCHER_"
"""The prefix of every setting's name."""

_OF_KUBERNETES = re.compile(r".*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
"""Set by Kubernetes in every pod for a Service named `dispatcher…`, unless enableServiceLinks is false."""
_ADDRESS_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://[0-9a-f.:\[\]]+", re.IGNORECASE)
"""The value that Kubernetes gives a variable …_PORT."""


def is_of_others(name: str, value: str | None) -> bool:
    """Whether a variable that begins with DISPATCHER_ and is not a setting is set on purpose by something else.

    Nothing in this repository sets such a variable: its compose file, units, manifests and tests set only settings.
    """
    name = name.upper()
    if _OF_KUBERNETES.fullmatch(name):
        return True
    return name.endswith("_PORT") and bool(_ADDRESS_OF_KUBERNETES.fullmatch(value or ""))


def unknown(variables: Mapping[str, str | None], settings: Collection[str]) -> list[str]:
    """Names that look like a setting and are none, in upper case, sorted. Variables with an empty value are ignored."""
    return sorted(
        name.upper()
        for name, value in variables.items()
        if value != ""
        and name.upper().startswith(PREFIX)
        and name.upper() not in settings
        and not is_of_others(name, value)
    )


def problem(name: str, where: str, settings: Iterable[str]) -> str:
    """The error text for an unknown setting, with the most similar known one, if any."""
    near = get_close_matches(name, list(settings), n=1, cutoff=0.8)
    hint = f"did you mean {near[0]}?" if near else "remove it; `dispatcher config` lists all settings"
    return f"{name} in {where} is no setting: {hint}"


def without_prefix(
    file: Mapping[str, str | None], variables: Collection[str], settings: Iterable[str]
) -> list[str]:
    """An error text for each variable of `.env` that has a setting's name without the prefix.

    None if the setting itself is set too, among `variables`: then the other one is for another program.
    """
    set_ = {name.upper() for name in variables}
    return [
        f"{bare} in .env has no effect: write {name} (if it is for another program, set {name} as well)"
        for name in settings
        if (bare := name.removeprefix(PREFIX)).lower() in file and name not in set_
    ]


ENCODING = "utf-8-sig"
"""Of `.env`: editors may begin a file with a BOM, which would be part of the first name."""


def broken_line(path: Path) -> str:
    """What is wrong with a `.env` that is no file, or with its first line that cannot be read, without its value; empty if all can be.

    python-dotenv leaves such a line out, and then a setting would silently keep its default. Raises UnicodeDecodeError.
    """
    if not (path.is_file() or path.is_fifo()):  # pydantic-settings reads nothing else
        return ".env is no file: give the settings a file, or rename it" if path.exists() else ""
    with path.open(encoding=ENCODING) as file:
        for found in parse_stream(file):
            has_no_value = found.value is None and (found.key or "").upper().startswith(PREFIX)
            if found.error or has_no_value:
                text = found.original.string
                number = found.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                return f"line {number} of .env cannot be read: write NAME=value, and close each quote that is opened"
    return ""
