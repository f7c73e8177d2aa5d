"""The entry points: Celery's task and worker, and the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery


def __getattr__(name: str) -> Any:
    """Lets `celery -A tasks` find the application without loading Celery for every command."""
    if name != "app":
        raise AttributeError(name)
    found = importlib.import_module("tasks.app").app
    globals()["app"] = found  # replaces the submodule `tasks.app`, which the import bound to this name
    return found
