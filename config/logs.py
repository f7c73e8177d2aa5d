"""Logging by structlog: one line per event, readable on a terminal, JSON elsewhere.

No log call raises or blocks (`config/log_lines.py`): a line that cannot be written or rendered is lost and counted.
"""

import atexit
import json
import logging
import os
import re
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import msgspec
import structlog

from config.log_lines import FLUSH_SECONDS, Lines, LinesStream, descriptor_of, errors

QUIET = ("celery.app.trace", "celery.worker.strategy", "httpx", "httpcore", "asyncio", "aiohttp", "urllib3")
"""Loggers limited to warnings, because they repeat our own lines or print whole URLs."""
UVICORNS = ("uvicorn", "uvicorn.error", "uvicorn.access")
"""Loggers that have their own handlers if started by `uvicorn` and not `dispatcher api`; those could block or raise."""


_prints_json = False
"""Whether printed text becomes JSON lines, as log lines are."""

_outputs = [errors]
"""The outputs that `flush` waits for."""

log = structlog.get_logger()


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Sends all log lines, ours and the libraries', to standard error in one format.

    Ours bypass `logging`, which took four times as long.
    """
    global _prints_json
    is_terminal = LinesStream(errors, sys.__stderr__).isatty()
    console = form == "console" or (form == "auto" and is_terminal)
    _prints_json = not console
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _as_json]
    ours: list[structlog.typing.Processor] = [_json_line]
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=is_terminal and not os.environ.get("NO_COLOR"),  # no-color.org
                exception_formatter=structlog.dev.plain_traceback,  # rich tracebacks show locals, which may hold secrets
            )
        ]
        ours = [*shared, _drop_none, *last]
    structlog.configure(
        processors=ours,
        wrapper_class=_to_lines(structlog.make_filtering_bound_logger(level)),
        logger_factory=structlog.ReturnLoggerFactory(),  # never called
        cache_logger_on_first_use=True,
    )
    errors.lost_notice = lambda count: _rendered(ours, "log.lines_lost", count)
    handler = _LineHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    handler.addFilter(_once_while_away)
    handler.addFilter(_once_a_minute)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in UVICORNS:
        logging.getLogger(name).handlers = []


def guard_standard_streams() -> None:
    """For services: from now on printing neither raises nor blocks, in Celery's signal handlers too.

    If logs are JSON, each printed line becomes a JSON line too: Celery's banner, warnings, uncaught exceptions.
    """
    if isinstance(sys.stdout, PrintedStream):
        return
    output = Lines(descriptor_of(sys.stdout))
    _outputs.append(output)
    atexit.register(output.flush)
    sys.__stderr__ = HiddenStream(errors, sys.stderr, "warning")  # type: ignore[assignment,misc]
    sys.stderr = PrintedStream(errors, sys.stderr, "warning")
    sys.__stdout__ = HiddenStream(output, sys.stdout, "info")  # type: ignore[assignment,misc]
    sys.stdout = PrintedStream(output, sys.stdout, "info")
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_of_thread
    sys.unraisablehook = _log_unraisable


class PrintedStream(LinesStream):
    """Replaces a standard stream. If logs are JSON, each printed line becomes a JSON line with `event` and `level`."""

    def __init__(self, lines: Lines, replaced: TextIO | None, level: str) -> None:
        super().__init__(lines, replaced)
        self._level = level
        self._begun = ""
        self._lock = threading.RLock()  # a signal handler may print while its thread does

    def write(self, text: str) -> int:
        """Queues text for writing."""
        if not _prints_json:
            return super().write(text)
        with self._lock:
            *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._log(line)
        return len(text)

    def writelines(self, texts: list[str]) -> None:
        """Queues texts for writing."""
        self.write("".join(texts))

    def flush(self) -> None:
        """Ends a line that was begun; waits for nothing."""
        with self._lock:
            begun, self._begun = self._begun, ""
        self._log(begun)

    def _log(self, line: str) -> None:
        if line.strip():
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            level = "error" if line.startswith("error: ") else self._level
            super().write(json.dumps({"event": line, "level": level, "timestamp": now}) + "\n")


class HiddenStream(PrintedStream):
    """As PrintedStream, without a descriptor, to which Celery's signal handlers would write directly and could block."""

    def fileno(self) -> None:
        """None, so that those handlers print nothing."""


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("process.died", exc_info=(kind, error, trace))


def _log_uncaught_of_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is not SystemExit:
        name = told.thread.name if told.thread else None
        log.critical("thread.died", thread=name, exc_info=(told.exc_type, told.exc_value, told.exc_traceback))


def _log_unraisable(told: "sys.UnraisableHookArgs") -> None:
    log.error(
        "exception.ignored",
        where=repr(told.object),
        exc_info=(told.exc_type, told.exc_value, told.exc_traceback),
    )


def lost() -> int:
    """How many log lines of this process could not be written."""
    return errors.lost


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Waits until everything logged and printed is written, for at most `seconds` per output."""
    for lines in _outputs:
        lines.flush(seconds)


class _LineHandler(logging.Handler):
    """Sends the libraries' log records to `errors`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            errors.lose()
        else:
            errors.put(line + "\n")


def _to_lines(bound: Any) -> Any:
    """A bound logger class that writes to `errors`; a line that cannot be rendered is counted as lost."""

    class ToLines(bound):  # type: ignore[misc]
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> None:
            try:
                line: Any = {**self._context, **fields} if self._context else fields
                line["event"] = event
                for processor in self._processors:
                    line = processor(None, method_name, line)
                errors.put(line + "\n")
            except Exception:
                errors.lose()

    return ToLines


def _rendered(processors: list[structlog.typing.Processor], event: str, count: int) -> str:
    line: Any = {"event": event, "count": count}
    for processor in processors:
        line = processor(None, "warning", line)
    return f"{line}\n"


def _json_line(logger: object, method: str, event: structlog.typing.EventDict) -> str:
    """An event as a JSON line, in one processor instead of five: a worker writes a line for each attempt."""
    event = _drop_none(logger, method, event)
    event["level"] = method
    event["timestamp"] = datetime.now(UTC)
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return _as_json(logger, method, event)


def _as_json(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except Exception:  # a lone surrogate, a number of 65 bits, a repr that raises
        return json.dumps({name: _showable(value) for name, value in event.items()})


def _showable(value: object) -> object:
    try:
        return json.loads(json.dumps(value, default=_plain))
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _plain(value: object) -> str:
    """A datetime as msgspec writes it, anything else by its repr."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else repr(value)


def _drop_none(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {name: value for name, value in event.items() if value is not None}


_CONSUMER = ("celery.worker.consumer.consumer", "celery.worker.consumer.connection")
"""Celery's loggers of its connection to the broker."""
_QUIET_SECONDS = 60.0
"""A line that was not said for so long is said again; Celery tries at least every 40 s."""
_consumer_said: dict[str, float] = {}
"""When each line of these was said last, also if it was dropped; seconds since 1970."""


def _once_while_away(record: logging.LogRecord) -> bool:
    """Drops repeats of what Celery says of its connection to the broker: it logs every attempt, and every new connection.

    With a right missing it has a new connection ten times a second. A line that gives another reason is no repeat.
    Its line about frequent restarts, which has a traceback and comes each second while the broker refuses writes, is dropped too.
    """
    if record.name not in _CONSUMER:
        return True
    if str(record.msg).startswith("Frequent restarts"):
        return False
    try:
        says = record.getMessage().partition("\n")[0]  # what it does next follows, with a number that differs
    except Exception:  # the handler counts it as lost
        return True
    said = _consumer_said.pop(says, float("-inf"))
    _consumer_said[says] = record.created
    if len(_consumer_said) > 100:
        del _consumer_said[next(iter(_consumer_said))]
    return record.created - said > _QUIET_SECONDS


_last_from_opentelemetry: dict[tuple[str, int], float] = {}


def _once_a_minute(record: logging.LogRecord) -> bool:
    """Drops what one line of OpenTelemetry's code says again within a minute: it logs each try to export, and each span lost.

    Of the collector's URL it takes the query away, which may be a credential.
    """
    if not record.name.startswith("opentelemetry."):
        return True
    said = _last_from_opentelemetry.get((record.name, record.lineno), float("-inf"))
    if record.created - said < 60:
        return False
    _last_from_opentelemetry[record.name, record.lineno] = record.created
    with suppress(Exception):  # the handler counts it as lost
        record.msg, record.args = re.sub(r"\?[^\s'\"()]+", "?…", record.getMessage()), None
    return True
