"""Tells settings from other variables with the same prefix, in the environment and in `.env`."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

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
