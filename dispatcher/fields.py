"""What a field may hold: checks that return a value as it is kept, and records that are made of such fields.

A check raises ValueError with a text that reads on from the field's name: "must be text".
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, ParamSpec, Self, dataclass_transform

from dispatcher.codec import timestamp_ms
from dispatcher.errors import InvalidInput, visible

MAX_DEPTH = 32
"""How deep free objects may be nested: whoever reads them later has a stack of its own."""

MAX_DESCRIBED = 10
"""Problems that an error's text has; the rest is counted."""

Read = Callable[[Any], Any]


class Check(NamedTuple):
    """How a value is read, and what OpenAPI says of it."""

    read: Read
    schema: Mapping[str, Any]


def text(low: int, high: int) -> Check:
    """Text of so many characters."""

    def read(value: object) -> str:
        plain = value if type(value) is str and value.isascii() else _plain(value)
        if not low <= len(plain) <= high:
            raise ValueError(f"must have {low} to {high:,} characters; it has {len(plain):,}")
        return plain

    bounds = {"minLength": low} if low else {}
    return Check(read, {"type": "string", **bounds, "maxLength": high})


def matching(pattern: str, words: str) -> Check:
    """Text of a pattern that is anchored at both ends; `words` say what it allows."""
    is_match = re.compile(pattern.removeprefix("^").removesuffix("$")).fullmatch

    def read(value: object) -> str:
        plain = value if type(value) is str else _plain(value)
        if not is_match(plain):
            raise ValueError(f"must be {words}")
        return plain

    return Check(read, {"type": "string", "pattern": pattern})


def whole_number(low: int, high: int) -> Check:
    """A whole number within bounds; true, 1.0 and "1" are none."""

    def read(value: object) -> int:
        if type(value) is int and low <= value <= high:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return int(value)
        raise ValueError(f"must be a whole number from {low:,} to {high:,}")

    return Check(read, {"type": "integer", "minimum": low, "maximum": high})


def decimal_number(limit: int, digits: int) -> Check:
    """A number from 0 to below a limit, with so many decimals, kept digit for digit; text, int or float of Python too."""

    def read(value: object) -> Decimal:
        number = _decimal(value)
        if not number.is_finite():
            raise ValueError("must be a finite number")
        exponent = number.as_tuple().exponent
        if not (0 <= number < limit and isinstance(exponent, int) and exponent >= -digits):
            raise ValueError(f"must be from 0 to below {limit:,}, with at most {digits} decimals")
        return number

    return Check(read, {"anyOf": [{"type": "number"}, {"type": "string"}]})


def moment() -> Check:
    """A time in ISO 8601 with a zone, kept as it was given; or a datetime of Python with one."""

    def read(value: object) -> str:
        if type(value) is not str:
            if not isinstance(value, datetime | str):
                raise ValueError("must be text in ISO 8601 with a zone, such as 2026-06-09T13:04:57Z")
            value = _iso(value) if isinstance(value, datetime) else _plain(value)
        timestamp_ms(value)
        return value

    return Check(read, {"type": "string"})


def one_of(words: Mapping[str, Any]) -> Check:
    """One of several words, which stand for values."""
    refusal = f"must be one of {', '.join(words)}"

    def read(value: object) -> Any:
        found = words.get(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(refusal)
        return found

    return Check(read, {"type": "string", "enum": list(words)})


def free_object() -> Check:
    """Any JSON object, up to MAX_DEPTH levels deep."""

    def read(value: object) -> dict[str, Any]:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise ValueError("must be an object")
        kept: dict[str, Any] = dict(value)
        has_nested = False
        for name, one in kept.items():
            if not isinstance(name, str):
                raise ValueError("has a name that is not text")
            has_nested = has_nested or isinstance(one, _NESTS)
        if has_nested and is_deep(kept):
            raise ValueError(f"is nested too deeply; the limit is {MAX_DEPTH} levels")
        return kept

    return Check(read, {"type": "object", "additionalProperties": True})


def is_deep(value: object) -> bool:
    """Whether lists and objects are nested in each other more than MAX_DEPTH levels; takes no stack, and ends on a circle."""
    level = _nesting([value])
    for _ in range(MAX_DEPTH):
        level = _nesting(one for some in level for one in (some.values() if isinstance(some, dict) else some))
        if not level:
            return False
    return True


def _nesting(values: Iterable[Any]) -> list[Any]:
    """The lists and objects among values, each once."""
    return list({id(one): one for one in values if isinstance(one, _NESTS)}.values())


_NESTS = (dict, list, tuple)


def _plain(value: object) -> str:
    """Text that UTF-8 can hold; of a subclass, such as an enum's, the text itself."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("must be valid Unicode: it has a lone surrogate") from None
    return value if type(value) is str else str.__str__(value)


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number")
    try:
        return Decimal(value if isinstance(value, int) else str(value))
    except ArithmeticError:
        raise ValueError("must be a number") from None


def _iso(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("needs a zone: pass datetime.now(UTC), not datetime.now()")
    if offset.total_seconds() % 60:  # ISO 8601 has none of seconds
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise ValueError("must lie in the years 1 to 9999, in UTC") from None
    return value.isoformat().replace("+00:00", "Z")


class Field(NamedTuple):
    """One field of a record."""

    check: "Check | type[Record]"
    """How it is read; or the record that it is."""
    default: Any = None
    is_required: bool = False
    takes_null: bool = True


def required(check: "Check | type[Record]") -> Field:
    """A field that has to be there."""
    return Field(check, is_required=True, takes_null=False)


class Problem(NamedTuple):
    """What is wrong with one field."""

    path: str
    """Its name, behind those of the records that it is in."""
    text: str
    instead_of: Collection[str] = ()
    """Of an unknown field: the names that there are."""

    def __str__(self) -> str:
        nearest = _nearest(self.path.rpartition(".")[2], self.instead_of) if self.instead_of else None
        return f"{visible(self.path)[:100]}: {self.text}{f'; did you mean {nearest}?' if nearest else ''}"


class Problems(ValueError):
    """All that is wrong with a record."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__()
        self.found = found

    def __str__(self) -> str:
        more = f"; and {len(self.found) - MAX_DESCRIBED} more" if len(self.found) > MAX_DESCRIBED else ""
        return "; ".join(map(str, self.found[:MAX_DESCRIBED])) + more


P = ParamSpec("P")
_Names = dict[str, tuple[str, Read, bool]]
"""Of a record: what a field may be called, its attribute, how it is read, whether null stands for nothing."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """An object of checked fields that does not change.

    A subclass says with `fields=` what its fields are, and writes an `__init__` of them that is `checked`, for those who read it and for type checkers.
    """

    _checks: ClassVar[Mapping[str, Field]]
    _defaults: ClassVar[dict[str, Any]]
    _in_json: ClassVar[dict[str, str]]
    _json_names: ClassVar[_Names]
    _python_names: ClassVar[_Names]
    _hidden: ClassVar[Collection[str]]

    def __init_subclass__(
        cls, fields: Mapping[str, Field] | None = None, hidden: Collection[str] = ()
    ) -> None:
        """`hidden` are those that repr leaves out. Without `fields` it has those of its base."""
        if fields is None:
            return
        cls._checks, cls._hidden = fields, hidden
        cls._defaults = {name: field.default for name, field in fields.items() if not field.is_required}
        cls._in_json = {name: _camel(name) for name in fields}
        cls._json_names, cls._python_names = {}, {}
        for name, (check, _, _, takes_null) in fields.items():
            of_json = check.read if isinstance(check, Check) else check._of_json
            of_python = check.read if isinstance(check, Check) else check._of_python
            cls._json_names[_camel(name)] = (name, of_json, takes_null)
            cls._python_names[_camel(name)] = cls._python_names[name] = (name, of_python, takes_null)

    def replace(self, **changes: Any) -> Self:
        """A copy in which some fields have other values. Raises InvalidInput."""
        return type(self)(**self.__dict__ | changes)

    __replace__ = replace  # copy.replace, from Python 3.13 on

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change; replace({name}=…) makes another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(value for value in map(self.__dict__.get, self._checks) if type(value) is not dict))

    def __repr__(self) -> str:
        shown = ((name, self.__dict__[name]) for name in self._checks if name not in self._hidden)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown if v is not None)})"

    @classmethod
    def _of_json(cls, value: object) -> Self:
        """One from decoded JSON, by the names of JSON. Raises Problems."""
        return cls._made(value, cls._json_names, cls._in_json)

    @classmethod
    def _of_python(cls, value: object) -> Self:
        """One from the names of Python, or of JSON. Raises Problems."""
        return cls._made(value, cls._python_names, None)

    @classmethod
    def _made(cls, value: object, names: _Names, in_json: Mapping[str, str] | None) -> Self:
        if type(value) is not dict:
            if isinstance(value, cls):
                return value
            if not isinstance(value, Mapping):
                raise ValueError("must be an object")
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", cls._read(value, names, in_json))
        return made

    @classmethod
    def _read(
        cls, given: Mapping[str, Any], names: _Names, in_json: Mapping[str, str] | None
    ) -> dict[str, Any]:
        """The values of all fields. Raises Problems; `in_json` says what fields are called in these, if not as in Python."""
        values = cls._defaults.copy()
        known = 0
        wrong: dict[str, list[Problem]] = {}
        for key, value in given.items():
            if key not in names:
                continue
            name, read, takes_null = names[key]
            known += 1
            if value is None and takes_null:
                continue
            try:
                values[name] = read(value)
            except ValueError as error:
                wrong[name] = _below(key, error)
        is_twice = in_json is None and len({names[key][0] for key in given if key in names}) < known
        if wrong or is_twice or known < len(given) or len(values) < len(cls._checks):
            raise cls._problems(given, values, wrong, names, in_json)
        return cls._completed(values)

    @classmethod
    def _problems(
        cls,
        given: Mapping[str, Any],
        values: Mapping[str, Any],
        wrong: Mapping[str, list[Problem]],
        names: _Names,
        in_json: Mapping[str, str] | None,
    ) -> Problems:
        """All that is wrong, in the order of the fields; unknown ones come last."""
        called = in_json or {name: name for name in cls._checks}
        keys: dict[str, list[str]] = {}
        for key in given:
            if key in names:
                keys.setdefault(names[key][0], []).append(key)
        found: list[Problem] = []
        for name in cls._checks:
            if len(keys.get(name, ())) > 1:
                found.append(Problem(keys[name][1], "is given twice, by two of its names"))
            elif name in wrong:
                found += wrong[name]
            elif name not in values:
                found.append(Problem(called[name], "is required"))
        known = list(called.values())
        unknown = (Problem(str(key), "is not a known field", known) for key in given if key not in names)
        return Problems([*found, *unknown])

    @classmethod
    def _completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values, with what follows from them."""
        return values

    def _to_json(self) -> dict[str, Any]:
        """What has a value, by the names of JSON."""
        values = self.__dict__
        return {
            key: value._to_json() if isinstance(value, Record) else value
            for name, key in self._in_json.items()
            if (value := values[name]) is not None
        }


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """An `__init__` of a Record, which has no body: reads what is given. Raises InvalidInput."""

    @functools.wraps(init)
    def read(self: Record, *args: object, **given: Any) -> None:
        kind = type(self)
        if args:
            names = ", ".join(f"{name}=…" for name, field in kind._checks.items() if field.is_required)
            raise InvalidInput(f"{kind.__name__} takes its fields by name: {kind.__name__}({names})")
        try:
            self.__dict__.update(kind._read(given, kind._python_names, None))
        except Problems as problems:
            raise InvalidInput(str(problems)) from None

    return read  # type: ignore[return-value]  # its parameters are those of init


def json_schema(kind: type[Record], reference: str) -> dict[str, Any]:
    """What OpenAPI says of a record; `reference` is where the records that its fields are stand, with {model} for a name."""
    properties: dict[str, Any] = {}
    for name, field in kind._checks.items():
        check = field.check
        schema = (
            dict(check.schema)
            if isinstance(check, Check)
            else {"$ref": reference.format(model=check.__name__)}
        )
        if field.takes_null:
            schema = {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}
        if field.default is not None:
            schema["default"] = field.default
        properties[kind._in_json[name]] = schema
    return {
        "type": "object",
        "title": kind.__name__,
        "description": (kind.__doc__ or "").partition("\n\n")[0],
        "properties": properties,
        "required": [kind._in_json[name] for name, field in kind._checks.items() if field.is_required],
        "additionalProperties": False,
    }


def _below(where: str, error: ValueError) -> list[Problem]:
    """What is wrong in a field, by the path from the record that it is in."""
    if isinstance(error, Problems):
        return [one._replace(path=f"{where}.{one.path}") for one in error.found]
    return [Problem(where, str(error))]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that is most like another one, if any is."""
    if len(name) > 64:
        return None
    from difflib import get_close_matches

    folded = {_folded(one): one for one in known}
    found = get_close_matches(_folded(name), folded, 1, 0.75)
    return folded[found[0]] if found else None


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
