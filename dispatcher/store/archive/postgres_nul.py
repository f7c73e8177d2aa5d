"""Texts with a NUL, which PostgreSQL cannot have and JSON may bring: how they are written there."""

from collections.abc import Callable

from dispatcher.model import decode_json, encode_json

MARK = "\ue000"
"""A character without a meaning of its own (for private use): it, and a NUL, are written as it and a digit."""


def escaped(text: str) -> str:
    """A text as PostgreSQL keeps it."""
    return text.replace(MARK, f"{MARK}1").replace("\0", f"{MARK}0")


def unescaped(text: str) -> str:
    """The text that PostgreSQL keeps so."""
    return text.replace(f"{MARK}0", "\0").replace(f"{MARK}1", MARK)


def escaped_list(texts: str) -> str:
    """The same of each text in a JSON list, which PostgreSQL reads too."""
    return _each(texts, escaped) if MARK in texts or r"\u0000" in texts else texts


def unescaped_list(texts: str) -> str:
    """The list that PostgreSQL keeps so."""
    return _each(texts, unescaped) if MARK in texts else texts


def _each(texts: str, change: Callable[[str], str]) -> str:
    return encode_json([change(one) for one in decode_json(texts.encode())]).decode()
