"""Settings become objects: the rules of retrying."""

from config.settings import Settings
from dispatcher.rules.backoff import Backoff
from dispatcher.rules.decide import Policy


def policy(settings: Settings) -> Policy:
    """The rules of retrying."""
    backoff = Backoff(settings.backoff_base_seconds, settings.backoff_factor, settings.backoff_jitter)
    return Policy(settings.max_attempts, backoff, round(settings.retry_after_max_seconds * 1000))
