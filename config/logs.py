"""Logging by structlog: one line per event, readable on a terminal, JSON elsewhere.

No log call raises or waits (`config/lines.py`): what cannot be written, or cannot be shown, is lost and counted.
"""

import atexit
import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import msgspec
import structlog

from config.lines import FLUSH_SECONDS, Lines, LinesStream, descriptor_of, errors

QUIET = ("celery.app.trace", "celery.worker.strategy", "httpx", "httpcore", "asyncio", "aiohttp")
"""Loggers that repeat what our own lines say, or print whole URLs: warnings and worse only."""
UVICORNS = ("uvicorn", "uvicorn.error", "uvicorn.access")
"""Loggers with handlers of their own where `uvicorn` was called and not `dispatcher api`; they could wait or raise."""


_prints_json = False
"""Whether what is printed in this process is to be JSON, as its log lines are."""

_outputs = [errors]
"""What `flush` waits for."""

log = structlog.get_logger()


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Sends everything, ours and the libraries', in one form to standard error.

    Ours are written without a detour through `logging`, which took four times as long.
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
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=is_terminal and not os.environ.get("NO_COLOR"),  # no-color.org
                exception_formatter=structlog.dev.plain_traceback,  # rich ones show locals, and with them secrets
            )
        ]
    ours = [*shared, _drop_none, *last]
    structlog.configure(
        processors=ours,
        wrapper_class=_to_lines(structlog.make_filtering_bound_logger(level)),
        logger_factory=structlog.ReturnLoggerFactory(),  # not reached
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
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in UVICORNS:
        logging.getLogger(name).handlers = []


def guard_standard_streams() -> None:
    """Of a service: whatever prints in this process, Celery's signal handlers too, neither raises nor waits from now on.

    Where logs are JSON, so is what is printed, a line each: Celery's banner, warnings, exceptions that nobody caught.
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
    """In place of a standard stream, for whatever prints: where logs are JSON, each line is one with `event` and `level`."""

    def __init__(self, lines: Lines, replaced: TextIO | None, level: str) -> None:
        super().__init__(lines, replaced)
        self._level = level
        self._begun = ""
        self._lock = threading.RLock()  # a signal handler may print while its thread does

    def write(self, text: str) -> int:
        """Has text written soon."""
        if not _prints_json:
            return super().write(text)
        with self._lock:
            *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._log(line)
        return len(text)

    def writelines(self, texts: list[str]) -> None:
        """Has texts written soon."""
        self.write("".join(texts))

    def flush(self) -> None:
        """Nothing to wait for; a line that was begun is ended."""
        with self._lock:
            begun, self._begun = self._begun, ""
        self._log(begun)

    def _log(self, line: str) -> None:
        if line.strip():
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            level = "error" if line.startswith("error: ") else self._level
            super().write(json.dumps({"event": line, "level": level, "timestamp": now}) + "\n")


class HiddenStream(PrintedStream):
    """The same for Celery's signal handlers, which would write to the descriptor at once, and could wait there for ever."""

    def fileno(self) -> None:
        """None: they say nothing then."""


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
    """Log lines of this process that could not be written."""
    return errors.lost


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Waits, at most so long each, until what was logged, and printed, is written."""
    for lines in _outputs:
        lines.flush(seconds)


class _LineHandler(logging.Handler):
    """The same for the libraries' lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            errors.lose()
        else:
            errors.put(line + "\n")


def _to_lines(bound: Any) -> Any:
    """A bound logger that writes to `errors`; a line that cannot be made is lost."""

    class ToLines(bound):  # type: ignore[misc]
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> None:
            try:
                (line,), _ = self._process_event(method_name, event, fields)
                errors.put(line + "\n")
            except Exception:
                errors.lose()

    return ToLines


def _rendered(processors: list[structlog.typing.Processor], event: str, count: int) -> str:
    line: Any = {"event": event, "count": count}
    for processor in processors:
        line = processor(None, "warning", line)
    return f"{line}\n"


def _as_json(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except Exception:  # a lone surrogate, a number of 65 bits, a repr that raises
        return json.dumps({name: _showable(value) for name, value in event.items()})


def _showable(value: object) -> object:
    try:
        return json.loads(json.dumps(value, default=repr))
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _drop_none(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {name: value for name, value in event.items() if value is not None}


_last_from_consumer = ""


def _once_while_away(record: logging.LogRecord) -> bool:
    """Celery says at every try that its broker is away; once is enough."""
    global _last_from_consumer
    if record.name != "celery.worker.consumer.consumer" or record.levelno < logging.WARNING:
        return True
    said, _last_from_consumer = _last_from_consumer, str(record.msg)
    return said != str(record.msg)
