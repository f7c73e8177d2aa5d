"""Which eventIds and messages only the archive has, by what Redis keeps of them: as lua/lib/fingerprints.lua, for another partition's keys."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.store.keys import Keys

SPREAD, FINGERPRINT = slice(0, 8), slice(8, 21)
"""Digits of the hash that say which bucket, and those that are the fingerprint."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of fingerprints."""

    number: int
    buckets: int
    ends_ms: int
    """Until when it is kept."""


def read_tables(found: Mapping[bytes, bytes] | Sequence[bytes]) -> list[Table]:
    """The tables, from HGETALL's reply (RESP3 or RESP2); those that no script of ours wrote are left out."""
    tables = []
    pairs = found.items() if isinstance(found, Mapping) else zip(found[::2], found[1::2], strict=True)
    for number, text in pairs:
        words = text.split()
        if number.isdigit() and len(words) == 4 and all(word.isdigit() for word in words):
            tables.append(Table(int(number), int(words[0]), int(words[3])))
    return tables


def id_of_message(uuid: str) -> str:
    """What stands for a message where an eventId is taken otherwise, which has no blank."""
    return f" {uuid}"


def fingerprint_of(workspace: str, id_: str) -> tuple[int, int]:
    """What says which bucket an eventId is in, and its fingerprint, a number of 52 bits."""
    digits = hashlib.sha1(f"{workspace} {id_}".encode(), usedforsecurity=False).hexdigest()
    return int(digits[SPREAD], 16), int(digits[FINGERPRINT], 16)


def look_ups(keys: Keys, tables: Sequence[Table], workspace: str, id_: str) -> list[tuple[str, str, int]]:
    """The commands of which one returns 1 if the eventId has a fingerprint."""
    spread, fingerprint = fingerprint_of(workspace, id_)
    return [("SISMEMBER", keys.fingerprint(one.number, spread % one.buckets), fingerprint) for one in tables]
