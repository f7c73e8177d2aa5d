"""Logging by structlog: one line per event, readable on a terminal, JSON elsewhere."""

import json
import logging
import sys

import msgspec
import structlog

QUIET = ("celery.app.trace", "celery.worker.strategy", "httpx", "httpcore", "asyncio", "aiohttp")
"""Loggers that repeat what our own lines say, or print whole URLs: warnings and worse only."""


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Sends everything, ours and the libraries', in one form to standard error.

    Ours are written without a detour through `logging`, which took four times as long.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _as_json]
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # rich ones show locals, and with them secrets
            )
        ]
    structlog.configure(
        processors=[*shared, _drop_none, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
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


def _as_json(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(event, default=repr)


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
