"""The keys of keys.py and of lua/lib/prologue.lua are the same."""

import inspect
import re
from pathlib import Path

import fakeredis
import pytest

from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.script_text import NAMES, fragment, source

KEYS = Keys("own")
PAIRS = {
    "key_of('events')": KEYS.events,
    "key_of('rejected')": KEYS.rejected,
    "key_of('rejected-counts')": KEYS.rejected_counts,
    "key_of('forwarded')": KEYS.forwarded,
    "key_of('expiries')": KEYS.expiries,
    "key_of('schedule')": KEYS.schedule,
    "key_of('schedule', 'w')": KEYS.schedule_of("w"),
    "key_of('format')": KEYS.format,
    "key_of('intake')": KEYS.intake,
    "key_of('full')": KEYS.full,
    "key_of('workers')": KEYS.workers,
    "key_of('endpoints')": KEYS.endpoints,
    "key_of('event', 'w', 'i')": KEYS.event("w", "i"),
    "key_of('body', 'w', 'i')": KEYS.body("w", "i"),
    "key_of('answer', 'w', 'i')": KEYS.answer("w", "i"),
    "key_of('message', 'w', 'i')": KEYS.message("w", "i"),
    "key_of('lane', 'e')": KEYS.lane("e"),
    "key_of('leased', 'e')": KEYS.leased("e"),
    "key_of('chain', 'e', 'm')": KEYS.chain("e", "m"),
    "key_of('newest', 'e', 'm')": KEYS.newest("e", "m"),
    "key_of('endpoint', 'e')": KEYS.endpoint("e"),
    "key_of('workspace', 'w')": KEYS.workspace("w"),
    "key_of('stats', 'hour', 7)": KEYS.stats("hour", 7),
    "key_of('ended')": KEYS.to_archive,
    "key_of('ended', 'w', 'failed')": KEYS.ended("w", "failed"),
    "key_of('archiver')": KEYS.archiver,
    "key_of('status-due')": KEYS.status_due,
    "key_of('fingerprints')": KEYS.fingerprints,
    "key_of('fingerprint', 3, 7)": KEYS.fingerprint(3, 7),
    "key_of('status', 'w', 'i')": KEYS.status("w", "i"),
    "key_of('status-phone', 'w', '+1')": KEYS.status_phone("w", "+1"),
    "key_of('status-reference', 'w', 'd')": KEYS.status_reference("w", "d"),
    "key_of('status-customer', 'w', 'SMS:i')": KEYS.status_customer("w", "SMS", "i"),
    "key_of('status-time', 'w', 'SMS:7')": KEYS.status_time("w", "SMS", 7),
    "key_of('status-campaign', 'w', 'c')": KEYS.status_campaign("w", "c"),
    "key_of('status-recipients', 'w', 'c')": KEYS.status_recipients("w", "c"),
    "key_of('tail')": KEYS.tail,
    "key_of('worker', 'n')": KEYS.worker("n"),
}


@pytest.mark.parametrize("expression", PAIRS)
def test_same_key(expression: str) -> None:
    """The script builds the same key as Python."""
    found = fakeredis.FakeRedis().eval(f"{fragment('prologue')}\nreturn {expression}", 1, KEYS.root, 1, 1, 1)
    assert PAIRS[expression].encode() == found


def test_every_key_is_compared() -> None:
    """Whatever key a script names is one of these, built of as many parts."""
    named = {
        (kind, parts.count(","))
        for name in NAMES
        for kind, parts in re.findall(r"key_of\('([\w-]+)'((?:, [^,()]+(?:\([^()]*\))?)*)\)", source(name))
    }
    assert {(e.split("'")[1], e.count(",")) for e in PAIRS} == named


def test_endpoint_id_is_short() -> None:
    """An endpoint stands in keys as 12 characters, whatever its name."""
    assert [12, 12] == [len(endpoint_id("a https://a.example:443")), len(endpoint_id("b" * 3000))]
    assert endpoint_id("a https://x.example:443") != endpoint_id("b https://x.example:443")


def test_every_key_is_in_the_docs() -> None:
    """The table of docs/architecture.md names each of them."""
    table = (
        (Path(__file__).parents[2] / "docs" / "architecture.md")
        .read_text()
        .partition("## What is in Redis")[2]
    )
    named = set(re.findall(r"`([a-z-]+)(?::[^`]*)?`", table))
    keys = set(re.findall(r'"\{self\.prefix\}:([a-z-]+)', inspect.getsource(Keys)))
    assert not keys - named
