"""Which fields of its callbacks' bodies a subscription leaves out. No I/O.

A field is named by its path in the dialect's JSON, with full stops: `message.dest`. The path of an object stands for
all that is in it.
"""

from collections.abc import Collection, Sequence
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.rules.dialects import field_paths, identifying_paths

MAX_PATHS = 50


def check_mask(paths: Collection[str], dialect: str) -> tuple[str, ...]:
    """The paths, without repeats. Raises InvalidInput for one that the dialect does not have, or cannot do without."""
    mask = tuple(dict.fromkeys(paths))
    if len(mask) > MAX_PATHS:
        raise InvalidInput(f"at most {MAX_PATHS} fields can be left out, not {len(mask)}")
    known, needed = field_paths(dialect), identifying_paths(dialect)
    for path in mask:
        for one, what in needed.items():
            if _covers(path, one):
                of = f"{path} holds {one}, which" if path != one else one
                raise InvalidInput(f"{of} cannot be left out: it tells {what}")
        if not any(_covers(path, one) for one in known):
            allowed = ", ".join(one for one in known if one not in needed)
            raise InvalidInput(f"dialect {dialect} has no field {path!r}; it can leave out {allowed}")
    return mask


def masked(body: dict[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """A copy of a callback's JSON without the fields at these paths; the others keep their order."""
    for path in paths:
        body = _without(body, path.split("."))
    return body


def _covers(path: str, other: str) -> bool:
    """Whether it is that path, or one above it."""
    return other == path or other.startswith(f"{path}.")


def _without(body: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    name, rest = names[0], names[1:]
    if not rest:
        return {one: value for one, value in body.items() if one != name}
    inner = body.get(name)
    return body | {name: _without(inner, rest)} if isinstance(inner, dict) else body
