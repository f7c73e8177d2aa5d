"""The only Celery task: a hint that endpoints have work."""

from config.broker import HINT_TASK
from tasks.app import app
from tasks.hint_message import hint_of
from tasks.worker import running_engine


@app.task(name=HINT_TASK)  # type: ignore[untyped-decorator]  # celery ships no types
def deliver(endpoints: list[str], probe: str = "") -> None:
    """Hands endpoints to this worker's engine; `probe` is the id that `dispatcher check --live` looks for."""
    running_engine().hand_over([hint_of(one) for one in endpoints], probe)
