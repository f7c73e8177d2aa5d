"""What commands say of subscriptions in odd states: one line and an exit code, and nothing half done."""

import json
import time

import pytest

from dispatcher.model import iso
from tests.command import command
from tests.redis.test_subscription_terms import BILLING, CRM, OWN, customer, serve, store
from tests.redis.test_subscriptions import Customer, change
from tests.world import World

__all__ = ["customer"]  # the fixture


def test_stats_by_endpoint(world: World, customer: Customer, redis_url: str) -> None:
    """Rows of default endpoints have no subscription; the table has the column all the same."""
    customer.tell(change("e1", "DELIVERED"))
    serve(world, OWN, CRM, BILLING)
    done = command(redis_url, "stats", "--by", "endpoint")
    assert done.returncode == 0, done.stderr
    assert "crm" in done.stdout


def test_what_has_no_body_is_not_replayed(world: World, customer: Customer, redis_url: str) -> None:
    """Alone and among many, with the reason; counted before as what it is."""
    store(world, dialect__crm="zeckta-new")
    world.now = round(time.time() * 1000) - 1000  # commands go by the real clock
    customer.tell(change("e1", "DELIVERED", timestamp=iso(world.now)))
    serve(world, OWN, CRM, BILLING)
    of = ("--workspace", "acme")
    alone = command(redis_url, "event", "replay", "e1.crm", *of)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "is not replayed: it has no body" in alone.stderr
    for options, code in (((), 0), (("--yes",), 1)):
        many = command(redis_url, "event", "replay", "--state", "failed", *of, *options)
        assert many.returncode == code
        assert "1 event not replayed: it has no body" in many.stdout
        assert "scheduled" not in many.stdout
    assert "it cannot be replayed" in command(redis_url, "event", "show", "e1.crm", *of).stdout


@pytest.mark.parametrize("name", ["crm", "default"])
def test_an_unreadable_url_is_mended(world: World, customer: Customer, redis_url: str, name: str) -> None:
    """A new one takes its place; what would be moved from the old one is refused before anything is changed."""
    store(world, **{"callback_url" if name == "default" else f"callback_url__{name}": "https://"})
    words = ("subscription", "update", "acme", name, "--callback-url", "https://new.example/", "--no-check")
    moving = command(redis_url, *words, "--move-waiting")
    assert (moving.returncode, moving.stdout) == (2, "")
    assert "to move what waits, give --move-from" in moving.stderr
    done = command(redis_url, *words)
    assert (done.returncode, done.stdout) == (0, f"subscription {name} of workspace acme is changed\n")
    shown = json.loads(command(redis_url, "subscription", "show", "acme", name, "--json").stdout)
    assert shown["callbackUrl"] == "https://new.example/"


def test_a_damaged_workspace(world: World, customer: Customer, redis_url: str) -> None:
    """Everything that would have to know it says so in one line, and changes nothing; what it had is still shown."""
    customer.tell(change("e1", "DELIVERED"))
    serve(world, OWN, CRM, BILLING)
    store(world, max_concurrency="x")
    before = world.call("hgetall", world.keys.workspace("acme"))
    url = ("--callback-url", "https://new.example/", "--no-check")
    for words in (
        "subscription list acme",
        "subscription show acme crm",
        "subscription update acme default --events MESSAGE_FAILED",
        "subscription pause acme crm",
        "subscription remove acme crm",
        "subscription ping acme crm",
        "workspace ping acme",
        f"subscription add acme new {' '.join(url)}",
    ):
        done = command(redis_url, *words.split())
        assert (done.returncode, done.stdout) == (2, ""), words
        [line] = done.stderr.splitlines()
        assert "its record in Redis is damaged" in line
    assert world.call("hgetall", world.keys.workspace("acme")) == before
    assert command(redis_url, "event", "show", "e1.crm", "--workspace", "acme").returncode == 0
    assert command(redis_url, "endpoint", "show", "acme.crm", "https://crm.example/").returncode == 0
    assert command(redis_url, "event", "replay", "e1.crm", "--workspace", "acme").returncode == 0


def test_names_that_are_wrong(customer: Customer, redis_url: str) -> None:
    """The error names what is wrong, and what there is."""
    url = "https://crm.example/"
    wrong = command(redis_url, "endpoint", "show", "acme.crn", url)
    assert wrong.returncode == 1
    assert "has no subscription 'crn'; did you mean crm?" in wrong.stderr
    typed = ("--auth", "oauht2", "--auth-user", "u", "--auth-token-url", url)
    wrong = command(redis_url, "subscription", "update", "acme", "crm", *typed)
    assert wrong.returncode == 2
    assert "auth is one of none, basic, bearer, oauth2, not 'oauht2'" in wrong.stderr
