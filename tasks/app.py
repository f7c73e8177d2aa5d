"""The Celery application: `celery -A tasks worker` finds it."""

import sys
from typing import Any

from celery import Celery
from celery.signals import celeryd_init, setup_logging

from config import logs
from config.settings import load_or_exit
from tasks import celery_options
from tasks.hint_channel import take_only_hints
from tasks.worker import EngineStep, LostConnectionStep

take_only_hints()
app = Celery("dispatcher")
app.config_from_object("config.celeryconfig")
app.steps["worker"].add(EngineStep)
app.steps["consumer"].add(LostConnectionStep)


@celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _guard(**_: Any) -> None:
    """Sets up logging before Celery prints its first warning and its banner."""
    _logging()
    logs.guard_standard_streams()


@setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]  # celery ships no types
def _logging(**_: Any) -> None:
    settings = load_or_exit()
    logs.configure(settings.log_level, settings.log_format)


def _refuse_options() -> None:
    """Exits with code 2 if Celery was given a worker option that has no effect here. Runs before Celery detaches."""
    after = sys.argv[sys.argv.index("worker") + 1 :] if "worker" in sys.argv else []
    if problem := celery_options.problem(after):
        _guard()
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201  becomes a log line where logs are JSON
        raise SystemExit(2)


_refuse_options()
