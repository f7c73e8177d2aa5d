"""How often customers of one workspace may change something in the portal."""

import pytest
from starlette.exceptions import HTTPException

from tasks.console.portal_rate import MOST, SECONDS, PortalRate


def test_the_rate_of_a_workspace_is_bounded() -> None:
    """A change that failed does not count, another workspace's counts for itself, and after a minute it is over."""
    now = 0.0
    rate = PortalRate(lambda: now)
    for _ in range(MOST):
        with pytest.raises(KeyError), rate.one("acme"):
            raise KeyError
    for _ in range(MOST):
        with rate.one("acme"):
            now += 0.1
    with pytest.raises(HTTPException) as caught, rate.one("acme"):
        pass
    assert 429 == caught.value.status_code
    with rate.one("globex"):
        pass
    now = SECONDS
    with rate.one("acme"):
        pass
    with pytest.raises(HTTPException), rate.one("acme"):
        pass


def test_nothing_is_kept_of_workspaces_that_rest() -> None:
    now = 0.0
    rate = PortalRate(lambda: now)
    for n in range(100):
        with rate.one(f"w{n}"):
            pass
    now = SECONDS
    with rate.one("acme"):
        pass
    assert ["acme"] == list(rate._times)
