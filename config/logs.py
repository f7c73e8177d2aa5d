"""Logging by structlog: one line per event, readable on a terminal, JSON elsewhere.

No log call raises or waits (`config/lines.py`): what cannot be written, or cannot be shown, is lost and counted.
"""

import atexit
import json
import logging
import sys
from typing import Any

import msgspec
import structlog

from config.lines import FLUSH_SECONDS, HiddenStream, Lines, LinesStream, descriptor_of, errors

QUIET = ("celery.app.trace", "celery.worker.strategy", "httpx", "httpcore", "asyncio", "aiohttp")
"""Loggers that repeat what our own lines say, or print whole URLs: warnings and worse only."""
UVICORNS = ("uvicorn", "uvicorn.error", "uvicorn.access")
"""Loggers with handlers of their own where `uvicorn` was called and not `dispatcher api`; they could wait or raise."""


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Sends everything, ours and the libraries', in one form to standard error.

    Ours are written without a detour through `logging`, which took four times as long.
    """
    colors = LinesStream(errors, sys.__stderr__).isatty()
    console = form == "console" or (form == "auto" and colors)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _as_json]
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=colors,
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
    """Whatever prints in this process, Celery's signal handlers too, neither raises nor waits from now on."""
    if isinstance(sys.stdout, LinesStream):
        return
    sys.__stderr__ = HiddenStream(errors, sys.stderr)  # type: ignore[assignment,misc]
    sys.stderr = LinesStream(errors, sys.stderr)
    output = Lines(descriptor_of(sys.stdout))
    atexit.register(output.flush)
    sys.__stdout__ = HiddenStream(output, sys.stdout)  # type: ignore[assignment,misc]
    sys.stdout = LinesStream(output, sys.stdout)


def guard_standard_error() -> None:
    """The same for a command's standard error alone: its output is what it is for, and must not be lost in silence."""
    if not isinstance(sys.stderr, LinesStream):
        sys.stderr = LinesStream(errors, sys.stderr)


def lost() -> int:
    """Log lines of this process that could not be written."""
    return errors.lost


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Waits, at most so long, until what was logged is written."""
    errors.flush(seconds)


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
