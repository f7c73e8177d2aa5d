"""The keys of keys.py and of lua/keys.lua are the same."""

import re

import fakeredis
import pytest

from dispatcher.keys import Keys, endpoint_id
from dispatcher.scripts import source

KEYS = Keys("own")
PAIRS = {
    "EVENTS": KEYS.events,
    "REJECTED": KEYS.rejected,
    "REJECTED_COUNTS": KEYS.rejected_counts,
    "EXPIRIES": KEYS.expiries,
    "SCHEDULE": KEYS.schedule,
    "INTAKE": KEYS.intake,
    "FULL": KEYS.full,
    "WORKERS": KEYS.workers,
    "ENDPOINTS": KEYS.endpoints,
    "event_key('w', 'i')": KEYS.event("w", "i"),
    "body_key('w', 'i')": KEYS.body("w", "i"),
    "answer_key('w', 'i')": KEYS.answer("w", "i"),
    "message_key('w', 'i')": KEYS.message("w", "i"),
    "lane_key('e')": KEYS.lane("e"),
    "leased_key('e')": KEYS.leased("e"),
    "chain_key('e', 'm')": KEYS.chain("e", "m"),
    "newest_key('e', 'm')": KEYS.newest("e", "m"),
    "endpoint_key('e')": KEYS.endpoint("e"),
    "workspace_key('w')": KEYS.workspace("w"),
    "stats_key('hour', 7)": KEYS.stats("hour", 7),
    "ended_key('w', 'failed')": KEYS.ended("w", "failed"),
    "status_key('w', 'i')": KEYS.status("w", "i"),
    "phone_key('w', '+1')": KEYS.status_phone("w", "+1"),
    "reference_key('w', 'd')": KEYS.status_reference("w", "d"),
    "customer_key('w', 'SMS:i')": KEYS.status_customer("w", "SMS", "i"),
    "time_key('w', 'SMS:7')": KEYS.status_time("w", "SMS", 7),
    "campaign_key('w', 'c')": KEYS.status_campaign("w", "c"),
    "recipients_key('w', 'c')": KEYS.status_recipients("w", "c"),
    "TAIL": KEYS.tail,
    "worker_key('n')": KEYS.worker("n"),
}


@pytest.mark.parametrize("expression", PAIRS)
def test_same_key(expression: str) -> None:
    """The script builds the same key as Python."""
    found = fakeredis.FakeRedis().eval(f"{source('keys')}\nreturn {expression}", 1, KEYS.root)
    assert PAIRS[expression].encode() == found


def test_every_key_is_compared() -> None:
    """A key that is added to the script is added here."""
    text = source("keys")
    named = {name for line in re.findall(r"^local ([A-Z_, ]+) =", text, re.M) for name in line.split(", ")}
    built = set(re.findall(r"^local function (\w+)\(", text, re.M))
    assert named - {"P", "GROUP"} | built == {expression.partition("(")[0] for expression in PAIRS}


def test_endpoint_id_is_short() -> None:
    """An endpoint stands in keys as 16 characters, whatever its name."""
    assert [16, 16] == [len(endpoint_id("a https://a.example:443")), len(endpoint_id("b" * 3000))]
    assert endpoint_id("a https://x.example:443") != endpoint_id("b https://x.example:443")
