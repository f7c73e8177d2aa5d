"""The Celery application: `celery -A tasks worker` finds it."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging

from config import logs
from config.settings import load_or_exit
from tasks.worker import EngineStep, LostConnectionStep

app = Celery("dispatcher")
app.config_from_object("config.celeryconfig")
app.steps["worker"].add(EngineStep)
app.steps["consumer"].add(LostConnectionStep)


@setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]  # celery ships no types
def _logging(**_: Any) -> None:
    settings = load_or_exit()
    logs.configure(settings.log_level, settings.log_format)
