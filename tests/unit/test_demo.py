"""The demo's account of each line, and the example file that it reads."""

import re
from collections import Counter
from typing import Any

from tasks import demo_file
from tasks.demo_account import Account
from tasks.receiver import Received


def account(lines: int = 1, received: tuple[Received, ...] = (), **counters: int) -> Account:
    """An account in which no callback was made."""
    return Account(lines, [], Counter(counters), [], list(received))


def post(**facts: Any) -> Received:
    """A callback that a receiver took."""
    fields: dict[str, Any] = {
        "event_id": "e1",
        "event_type": "t",
        "message": "m",
        "number": 1,
        "problem": None,
    }
    return Received(**fields | {"status": 200, "body": b"", "port": 1} | facts)


def test_it_adds_up() -> None:
    """Each line is a duplicate or causes no callback: nothing is missing."""
    assert [] == list(account(3, duplicate=1, noCallback=2).problems())


def test_what_does_not_add_up() -> None:
    """A line without an end, a callback that the ledger does not know, a repeated and an unverified one are each named."""
    found = account(2, (post(), post(number=2), post(event_id="e2", problem="no signature")), duplicate=1)
    assert [
        "2 lines went in, 1 are accounted for",
        "the receivers took 1 callbacks, the ledger says 0",
        "a receiver took a callback twice",
        "1 callbacks did not verify",
    ] == list(found.problems())


def test_the_file_is_brought_here() -> None:
    """Every host of the example file has a port of this machine, and no URL leads anywhere else."""
    lines = demo_file.lines()
    ports = {host: number for number, host in enumerate(demo_file.hosts(lines), 1)}
    local = b"\n".join(demo_file.localised(line, ports) for line in lines)
    assert {"hooks.acme.example", "api.bluefin.example"} <= set(ports)
    assert [] == re.findall(rb"https://[a-z.]+\.example", local)
    assert re.search(rb"http://127\.0\.0\.1:\d+/", local)
