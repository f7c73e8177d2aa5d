"""What templates say: times, numbers, texts of commands, masked numbers."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from dispatcher.codec import iso
from dispatcher.errors import visible
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.store.holds import duration as long_duration
from tasks import tables

_CODE = re.compile(r"`([^`]+)`")
_TIME = re.compile(r"\b(?:(\d{4}-\d\d-\d\d)[T ])?(\d\d:\d\d:\d\d(?:\.\d+)?)Z")
HALF_DAY_SECONDS = 43_200
MOST_PROSE = 20_000
"""Characters of a sentence that are shown: it may quote what somebody typed."""
_COMMAND = re.compile(r"`dispatcher [^`]*`[^;)]*\)?")
_TIME_OUT = "DISPATCHER_REQUEST_TIMEOUT_SECONDS"
_BRACKETS = re.compile(r" \([^()]*\)")
_SETTING = re.compile(r"DISPATCHER_[A-Z_]+")
_DIGIT = r"(?:\d|%3\d|\\u003\d)"
_NUMBER = re.compile(
    rf"(?P<time>\d{{4}}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{{1,9}})?)?(?!\d))"
    rf"|{_DIGIT}(?:(?:%2[0-9A-F]|_|[^\w\"'{{}}\[\]:,<>]){{0,3}}{_DIGIT}){{3,}}"
)
"""A moment, or a number: its digits may stand in groups, and be escaped as URLs and JSON escape them."""
_ONE_DIGIT = re.compile(_DIGIT)
LAST_DIGITS = 3
"""Digits of a number that are shown where it is masked."""


def when(ms: int | None) -> Markup:
    """A moment: the page's script shows it in the viewer's zone; UTC is in its title."""
    if not ms:
        return Markup("–")
    return Markup(_moment(iso(ms)))  # noqa: S704  digits


def prose(text: str | None) -> Markup:
    """A sentence of ours or of the ledger: `code` becomes code, times become moments; everything else is escaped."""
    text = text or ""
    escaped = str(escape(visible(text if len(text) <= MOST_PROSE else f"{text[:MOST_PROSE]}…")))
    coded = _CODE.sub(lambda found: f"<code>{found[1]}</code>", escaped)
    return Markup(_TIME.sub(lambda found: _moment(_whole(*found.groups())), coded))  # noqa: S704  it was escaped above


def _whole(day: str | None, clock: str) -> str:
    """A moment whose day is left out where it is less than half a day from now (holds.at)."""
    now = datetime.now(UTC)
    if day is None:
        seconds = sum(int(n) * of for n, of in zip(clock[:8].split(":"), (3600, 60, 1), strict=True))
        away = seconds - (now - now.replace(hour=0, minute=0, second=0)).total_seconds()
        near = 1 if away < -HALF_DAY_SECONDS else -1 if away > HALF_DAY_SECONDS else 0
        day = (now + timedelta(days=near)).date().isoformat()
    return f"{day}T{clock}Z"


def _moment(text: str) -> str:
    shown = text.partition(".")[0].removesuffix("Z").replace("T", " ")
    return f'<time datetime="{text}" title="{shown} UTC">{shown} UTC</time>'


def without_commands(text: str) -> str:
    """A sentence for customers, who have no command line and no settings here."""
    text = _BRACKETS.sub(_without_hint, _cut(text[: MOST_PROSE + 1])).replace(_TIME_OUT, "the time-out")
    return _SETTING.sub("a setting", text).strip("; ")


def _cut(text: str) -> str:
    """A text without commands, and without the parts of sentences that they are in.

    What precedes a command is looked for backwards from it: a pattern that begins before it tries every character.
    """
    kept, at = list[str](), 0
    for found in _COMMAND.finditer(text):
        before = text[at : found.start()]
        begins = max(before.rfind(one) for one in ";:,(")
        code = before.rfind("`") + 1
        kept.append(before[: max(begins, code)])
        at = found.end()
    return "".join([*kept, text[at:]])


def _without_hint(brackets: re.Match[str]) -> str:
    """Nothing in place of brackets that name a setting."""
    return "" if _SETTING.search(brackets[0]) else brackets[0]


def number(value: float | None) -> str:
    """A number with separators; a dash if it is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:,.1f}"


def many(count: int, one: str, several: str = "") -> str:
    """A number with what it counts: `1 callback was`, `1,200 callbacks were`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def size(value: float) -> str:
    """Bytes."""
    for least, unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if value >= least:
            return f"{value / least:.3g} {unit}"
    return f"{value:.0f} B"


def ms(value: float | None) -> str:
    """A duration in ms, as people say it."""
    return "–" if value is None else tables.duration(value / 1000)


def masked(text: str) -> str:
    """A text in which all digits of long numbers but the last three are dots; moments stay."""
    return _NUMBER.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    if found["time"]:
        return found[0]
    hidden = len(_ONE_DIGIT.findall(found[0])) - LAST_DIGITS
    return _ONE_DIGIT.sub("•", found[0], count=hidden)


def shown(value: object) -> object:
    """What a template prints: characters that hide, or that change how others are shown, become escapes.

    Of all its expressions but those that are marked up already: `|e` keeps a field's value as it is.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c in "\n\t" else visible(c) for c in value)


def meaning(error: str | None) -> str:
    """What an attempt's error word means, as docs/architecture.md has it."""
    if not error:
        return ""
    if error.startswith("http_"):
        return f"the receiver answered with HTTP status {error.removeprefix('http_')}"
    return ERRORS.get(error, "")


def masked_path(text: str) -> str:
    """A URL whose path is masked, but not its address and port; another text is masked whole."""
    scheme, separator, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{masked(path)}" if separator and " " not in scheme else masked(text)


def facts(of: Mapping[str, Any], hides_numbers: bool = False) -> str:
    """The fields of a change in the log, in one line; for whom it hides numbers, those in texts are masked."""
    return ", ".join(f"{name}: {_fact(value, hides_numbers)}" for name, value in of.items())


def _fact(value: Any, hides_numbers: bool) -> str:
    if isinstance(value, dict):
        return "{" + facts(value, hides_numbers) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_fact(one, hides_numbers) for one in value) + "]"
    if hides_numbers and isinstance(value, str):
        value = masked_path(value)
    return "none" if value is None else visible(value)


FILTERS: dict[str, Callable[..., object]] = {
    "when": when,
    "prose": prose,
    "number": number,
    "size": size,
    "ms": ms,
    "ago": long_duration,
    "masked": masked,
    "masked_path": masked_path,
    "meaning": meaning,
    "facts": facts,
    "visible": visible,
}
