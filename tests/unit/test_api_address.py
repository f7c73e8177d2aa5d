"""Where `dispatcher api` can listen."""

import re
import socket

import pytest

from dispatcher.errors import InvalidInput
from tasks.http_server import require_address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_an_address_of_this_machine(host: str) -> None:
    """An address of either family is taken, and a name."""
    if host == "::1":
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
    require_address(host, 0)


@pytest.mark.parametrize(
    ("host", "shown"), [("192.0.2.1", "192.0.2.1:80"), ("2001:db8::1", "[2001:db8::1]:80")]
)
def test_an_address_of_another_machine(host: str, shown: str) -> None:
    """Another machine's address is refused in one line."""
    with pytest.raises(InvalidInput, match=re.escape(f"cannot listen at {shown}: ")):
        require_address(host, 80)
