"""The entry points: Celery's task and worker, and the command line."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that contains `tasks` and `config`."""


def __getattr__(name: str) -> Any:
    """Lets `celery -A tasks` find the application without loading Celery for every command."""
    if name != "app":
        raise AttributeError(name)
    if HERE not in sys.path:  # Celery takes the working directory off the path again before it asks for `app`
        sys.path.insert(0, HERE)
    found = importlib.import_module("tasks.app").app
    globals()["app"] = found  # replaces the submodule `tasks.app`, which the import bound to this name
    return found
