"""Who else could connect to a Redis, or read what goes there: pure, by what Redis says of itself."""

import ssl
from typing import Any

import pytest

from dispatcher.store.check_finding import Verdict
from dispatcher.store.connection_security import access, encryption


@pytest.mark.parametrize(
    ("config", "user", "verdict"),
    [
        ({}, {}, Verdict.UNKNOWN),
        ({"bind": "0.0.0.0", "requirepass": "x"}, {}, Verdict.OK),
        ({"bind": "0.0.0.0"}, {"flags": ["on", "allkeys"]}, Verdict.OK),
        ({"bind": "127.0.0.1 -::1"}, {"flags": ["on", "nopass"]}, Verdict.OK),
        ({"bind": "* -::*", "protected-mode": "yes"}, {"flags": ["nopass"]}, Verdict.OK),
        ({"bind": "* -::*", "protected-mode": "no"}, {"flags": ["nopass"]}, Verdict.WARNING),
        ({"bind": "127.0.0.1 10.0.0.5", "protected-mode": "yes"}, {"flags": ["nopass"]}, Verdict.WARNING),
    ],
)
def test_access(config: dict[str, str], user: dict[str, Any], verdict: Verdict) -> None:
    """Without a password only a Redis that this machine alone can reach is well."""
    assert verdict is access(config, user).verdict


@pytest.mark.parametrize(
    ("host", "tls", "verdict"),
    [
        ("", {}, Verdict.OK),
        ("localhost", {}, Verdict.OK),
        ("::1", {}, Verdict.OK),
        ("redis.example", {}, Verdict.WARNING),
        ("redis.example", {"ssl_cert_reqs": ssl.CERT_REQUIRED}, Verdict.OK),
        ("redis.example", {"ssl_cert_reqs": ssl.CERT_NONE}, Verdict.WARNING),
        (
            "redis.example",
            {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": False},
            Verdict.WARNING,
        ),
    ],
)
def test_encryption(host: str, tls: dict[str, Any], verdict: Verdict) -> None:
    """A connection that leaves this machine is well with TLS whose certificate and name are verified."""
    assert verdict is encryption("encryption", host, tls).verdict
