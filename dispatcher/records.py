"""Base of the status change models: pydantic models that raise InvalidInput with plain error texts."""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Self, get_args

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from dispatcher.errors import InvalidInput, visible

MAX_DESCRIBED = 10
"""Problems that an error text lists; further ones are only counted."""


def _first_paragraph(schema: dict[str, Any]) -> None:
    """Keeps the docstring's first paragraph for OpenAPI; the others are about Python."""
    schema["description"] = schema.get("description", "").partition("\n\n")[0]


class Record(
    BaseModel,
    frozen=True,
    extra="forbid",
    alias_generator=to_camel,
    populate_by_name=True,
    allow_inf_nan=False,
    defer_build=True,  # until the first instance is created
    json_schema_extra=_first_paragraph,
):
    """An immutable pydantic model with snake_case names in Python and camelCase names in JSON.

    A subclass declares an `__init__` with its fields, decorated with `checked`, for readers and type checkers.
    """

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed. Raises InvalidInput."""
        return type(self)(**self.__dict__ | changes)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Like pydantic's, but `update` is validated as by `replace`. Raises InvalidInput."""
        copied = super().model_copy(deep=deep)
        return copied.replace(**update) if update else copied

    def __hash__(self) -> int:
        return hash(tuple(value for value in self.__dict__.values() if type(value) is not dict))

    def __repr_args__(self) -> Any:
        return ((name, value) for name, value in super().__repr_args__() if value is not None)

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        del cls.__signature__  # it has the JSON names; without it help() shows the signature of __init__


_building = threading.Lock()


def build(kind: type[Record]) -> None:
    """Builds a model under a lock: before 2.14 pydantic may fail when two threads build one."""
    with _building:
        kind.model_rebuild()


P = ParamSpec("P")


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Decorates the empty `__init__` of a Record: validates the given fields. Raises InvalidInput."""

    @functools.wraps(init)
    def read(self: Record, /, *args: object, **given: Any) -> None:
        kind = type(self)
        if args:
            required = (f"{name}=…" for name, field in kind.model_fields.items() if field.is_required())
            raise InvalidInput(
                f"{kind.__name__} takes its fields by name: {kind.__name__}({', '.join(required)})"
            )
        if not kind.__pydantic_complete__:
            build(kind)
        try:
            BaseModel.__init__(self, **given)
        except ValidationError as error:
            raise InvalidInput(describe(error, kind, in_json=False)) from None

    read.__doc__ = "Validates the fields. Raises InvalidInput, which names each invalid one."
    read.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # or pydantic would call it for nested records
    return read  # type: ignore[return-value]  # it has the parameters of init


def describe(error: ValidationError, kind: type[Record], *, in_json: bool) -> str:
    """All problems of a record on one line, with field names as in JSON or as in Python."""
    found = error.errors(include_url=False, include_context=False)
    more = f"; and {len(found) - MAX_DESCRIBED} more" if len(found) > MAX_DESCRIBED else ""
    return "; ".join(_problem(item, kind, in_json) for item in found[:MAX_DESCRIBED]) + more


def _problem(item: Any, kind: type[Record], in_json: bool) -> str:
    what, where, value = item["type"], list(map(str, item["loc"])), item["input"]
    text = _PLAIN.get(what) or item["msg"].removeprefix("Value error, ")
    if what == "not_this_str":
        text = _not_this_text(value, text)
    elif what == "extra_forbidden":
        text = _not_known(where[-1], _record_at(kind, where[:-1]), in_json)
    elif where[-1:] == ["[key]"]:
        where, text = where[:-2], "has a name that is not text"
    return ": ".join(filter(None, (visible(".".join(where))[:100], text)))


def _not_this_text(value: object, text: str) -> str:
    if not isinstance(value, str):
        return "must be text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode: it has a lone surrogate"
    return f"{text}; it has {len(value):,}" if text.endswith("characters") else text


_PLAIN = {
    "missing": "is required",
    "invalid_key": "is not a known field",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}


def _record_at(kind: type[Record], path: list[str]) -> type[Record]:
    """The type of the record at a path within a record."""
    for name in path:
        types = (field.annotation for one, field in kind.model_fields.items() if name in (one, field.alias))
        either = (
            one for found in types for one in (found, *get_args(found))
        )  # itself, or one of an optional type
        kind = next((one for one in either if isinstance(one, type) and issubclass(one, Record)), kind)
    return kind


def _not_known(name: str, kind: type[Record], in_json: bool) -> str:
    """Says that a field is unknown, and suggests a similar name if there is one."""
    fields = kind.model_fields
    if not in_json and name in fields:
        return "is given twice, by two of its names"
    text = "is not a known field"
    if len(name) > 64:
        return text
    from difflib import get_close_matches

    known = {_folded(one): field.alias if in_json else one for one, field in fields.items()}
    found = get_close_matches(_folded(name), known, 1, 0.75)
    return f"{text}; did you mean {known[found[0]]}?" if found else text


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
