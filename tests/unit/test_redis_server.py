"""Which Redis server the demo and the tests run."""

import subprocess

import pytest

from dispatcher.errors import DispatcherError
from tasks import redis_server


def test_a_server_in_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the PATH has none, an installed package brings one that runs."""
    monkeypatch.setenv("PATH", "")
    done = subprocess.run(
        [redis_server.find_server(), "--version"], capture_output=True, text=True, check=True
    )
    assert "v=" in done.stdout


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, the error says what to install, and names no package that the extra would not bring."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(redis_server, "WHEELS", {"no_such_package": "x"})
    with pytest.raises(
        DispatcherError, match=r"apt-get install redis-server\); .* the extra `demo`.*'\.\[demo\]'"
    ):
        redis_server.find_server()
