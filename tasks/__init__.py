"""The ways in: Celery's tasks and worker, the command line."""

from tasks.app import app

__all__ = ["app"]
