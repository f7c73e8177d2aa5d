"""Settings that are allowed one by one, and do harm together."""

import pytest

from config.settings import Settings
from dispatcher.store.check_finding import Verdict
from tasks.actions.check import contradictions
from tasks.actions.check_broker import look_at_broker


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backoff_base_seconds": 3600}, "attempt 4 of 5 would come after the expiry"),
        ({"max_attempts": 6}, "attempt 6 of 6 would come after the expiry"),
        ({"max_concurrency": 50, "max_in_flight": 10}, "MAX_CONCURRENCY"),
        ({"breaker_pause_seconds": 1000}, "BREAKER_MAX_PAUSE_SECONDS: every pause"),
        ({"delivered_body_seconds": 999_999}, "DELIVERED_BODY_SECONDS"),
        ({"alert_secret": "whsec_" + "QUJD" * 10}, "ALERT_URL is not"),
    ],
)
def test_contradiction(settings: dict[str, object], says: str) -> None:
    """Each is a warning that names the settings."""
    (found,) = contradictions(Settings(_env_file=None, **settings))
    assert (Verdict.WARNING, True) == (found.verdict, says in found.detail)


def test_defaults_agree() -> None:
    """The defaults contradict nothing."""
    assert [Verdict.OK] == [found.verdict for found in contradictions(Settings(_env_file=None))]


def test_a_broker_in_memory() -> None:
    """It is reachable, and no other worker hears of what is put there."""
    [found, _] = look_at_broker(Settings(_env_file=None, broker_url="memory://"))
    assert (Verdict.WARNING, True) == (found.verdict, "hints reach no other worker" in found.detail)
