"""Writes callbacks of the archive to standard output: as JSON lines, CSV or Parquet."""

import csv
import json
import sys
from datetime import datetime
from enum import StrEnum
from importlib import import_module
from typing import Any, Protocol

from dispatcher.errors import InvalidInput, extra_needed
from dispatcher.store.stored_callback import StoredCallback

COLUMNS = (
    "workspace", "eventId", "messageId", "status", "eventType", "endpoint", "state", "acceptedAt", "endedAt", "attempts",
    "httpStatus", "error",
)  # fmt: skip
TIMES, NUMBERS = ("acceptedAt", "endedAt"), ("attempts", "httpStatus")
ROW_GROUP = 10_000
"""Rows that a Parquet file holds together, and that are kept in memory until then."""


class Form(StrEnum):
    """What is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Writer(Protocol):
    """Writes callbacks to standard output."""

    def write(self, one: StoredCallback) -> None:
        """Writes one."""

    def close(self) -> None:
        """Writes what is left. Without it the output is not whole."""


def writer(form: Form) -> Writer:
    """Raises InvalidInput for Parquet without its library, or to a terminal."""
    match form:
        case Form.JSONL:
            return _JsonLines()
        case Form.CSV:
            return _Csv()
        case Form.PARQUET:
            return _Parquet()


class _JsonLines:
    def __init__(self) -> None:
        self._out = sys.stdout  # now: a progress on a terminal puts itself in its place

    def write(self, one: StoredCallback) -> None:
        self._out.write(json.dumps(one.as_json(), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Nothing is left."""


class _Csv:
    def __init__(self) -> None:
        self._out = csv.writer(sys.stdout, lineterminator="\n")
        self._has_head = False

    def write(self, one: StoredCallback) -> None:
        self._begin()
        self._out.writerow(_row(one).values())

    def close(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """Not before something is written: a command that is refused writes nothing."""
        if not self._has_head:
            self._out.writerow(COLUMNS)
            self._has_head = True


class _Parquet:
    def __init__(self) -> None:
        if sys.stdout.isatty():
            raise InvalidInput("Parquet is no text: send it to a file, with > history.parquet")
        try:
            self._arrow: Any = import_module("pyarrow")
            parquet: Any = import_module("pyarrow.parquet")
        except ImportError as error:
            raise InvalidInput(extra_needed("--format parquet", "parquet")) from error
        self._schema = self._arrow.schema([(name, self._type(name)) for name in COLUMNS])
        self._out = parquet.ParquetWriter(sys.stdout.buffer, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, one: StoredCallback) -> None:
        row = _row(one)
        self._rows.append(row | {name: datetime.fromisoformat(row[name]) for name in TIMES})
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._out.close()

    def _flush(self) -> None:
        self._out.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def _type(self, name: str) -> Any:
        if name in TIMES:
            return self._arrow.timestamp("ms", tz="UTC")
        return self._arrow.int32() if name in NUMBERS else self._arrow.string()


def _row(one: StoredCallback) -> dict[str, Any]:
    shown: dict[str, Any] = one.as_json()
    last = shown["attempts"][-1] if shown["attempts"] else {}
    shown |= {
        "attempts": len(shown["attempts"]),
        "httpStatus": last.get("httpStatus"),
        "error": last.get("error"),
    }
    return {name: shown[name] for name in COLUMNS}
