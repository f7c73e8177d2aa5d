"""The ways in: Celery's tasks and worker, the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery


def __getattr__(name: str) -> Any:
    """Makes `celery -A tasks` find the application, without loading Celery for every command."""
    if name != "app":
        raise AttributeError(name)
    found = importlib.import_module("tasks.app").app
    globals()["app"] = found  # in place of the module that the import has put here
    return found
