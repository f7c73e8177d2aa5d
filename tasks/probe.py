"""The question of `dispatcher check --live`: a hint that only asks who takes it."""

from celery import Celery
from kombu.exceptions import OperationalError

from config import broker
from config.settings import Settings
from dispatcher.errors import RedisUnavailable


def publish_probe(settings: Settings, probe: str) -> None:
    """Sends it through Celery, as workers send hints. Raises RedisUnavailable."""
    app = Celery("dispatcher", set_as_current=False)
    app.config_from_object("config.celeryconfig")
    with app:
        try:
            app.send_task(broker.HINT_TASK, ([],), {"probe": probe}, retry=False, ignore_result=True)
        except OperationalError as error:
            why = broker.problem(error, settings.celery_url)
            raise RedisUnavailable(f"Celery's broker is not reachable: {why}") from error
