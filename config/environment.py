"""Names in the environment and in `.env` that begin as settings do: which are settings, and which are somebody else's."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

PREFIX = "DISPATCHER_"
"""What the name of every setting begins with."""

_OF_KUBERNETES = re.compile(r".*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
"""Kubernetes sets these in every pod for a Service whose name begins with `dispatcher`, where enableServiceLinks is not false."""
_ADDRESS_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://[0-9a-f.:\[\]]+", re.IGNORECASE)
"""What it sets …_PORT to."""


def is_of_others(name: str, value: str | None) -> bool:
    """Whether a variable that begins with DISPATCHER_ and is no setting is set by something else, on purpose.

    Nothing of this repository sets one: its compose file, units, manifests and tests set settings alone.
    """
    name = name.upper()
    if _OF_KUBERNETES.fullmatch(name):
        return True
    return name.endswith("_PORT") and bool(_ADDRESS_OF_KUBERNETES.fullmatch(value or ""))


def unknown(variables: Mapping[str, str | None], settings: Collection[str]) -> list[str]:
    """The names that begin as a setting and are none, upper case, sorted. An empty value is none at all."""
    return sorted(
        name.upper()
        for name, value in variables.items()
        if value != ""
        and name.upper().startswith(PREFIX)
        and name.upper() not in settings
        and not is_of_others(name, value)
    )


def problem(name: str, where: str, settings: Iterable[str]) -> str:
    """What is wrong with a name that is no setting, with the one that was meant, if one is like it."""
    near = get_close_matches(name, list(settings), n=1, cutoff=0.8)
    hint = f"did you mean {near[0]}?" if near else "take it away; `dispatcher config` lists all settings"
    return f"{name} in {where} is no setting: {hint}"
