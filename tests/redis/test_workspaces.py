"""Workspaces in a real Redis."""

import pytest
from cryptography.fernet import Fernet

from dispatcher.errors import AlreadyExists, InvalidInput, NotFound, StillWaiting
from dispatcher.ledger import endpoint_id
from dispatcher.secrets import SecretBox
from dispatcher.workspaces import WorkspaceCache, Workspaces
from tests.world import World, callback

URL = "https://a.example/hooks"


@pytest.fixture
def workspaces(world: World) -> Workspaces:
    """Workspaces with readable secrets."""
    return Workspaces(world.client, world.keys, SecretBox())


def test_add_and_read(world: World, workspaces: Workspaces) -> None:
    """A workspace is read back as it was made, with a secret of its own."""
    made = world.run(workspaces.add("acme", "zeckta", URL, now_ms=5, max_concurrency=7))
    found = world.run(workspaces.require("acme"))
    assert ("acme", "zeckta", URL, made.secrets, 5, 7, None) == (
        found.id,
        found.dialect,
        found.callback_url,
        found.secrets,
        found.created_ms,
        found.max_concurrency,
        found.problem,
    )
    assert made.secrets[0].text not in repr(found)
    assert ["acme"] == world.run(workspaces.names())


@pytest.mark.parametrize(
    ("name", "dialect", "url", "secret", "says"),
    [
        ("a b", "zeckta", URL, None, "1 to 64 letters"),
        ("acme\n", "zeckta", URL, None, "1 to 64 letters"),
        ("acme", "twilio", URL, None, "unknown dialect 'twilio'"),
        ("acme", "zeckta", "http://a.example/", None, "must be https"),
        ("acme", "zeckta", URL, "hush", "starts with whsec_"),
        ("acme", "zeckta", URL, "whsec_aHVzaA==", "24 to 64 bytes"),
    ],
)
def test_refused(
    world: World, workspaces: Workspaces, name: str, dialect: str, url: str, secret: str | None, says: str
) -> None:
    """What cannot be used is refused with a reason that never holds the secret; nothing is made."""
    with pytest.raises(InvalidInput, match=says) as caught:
        world.run(workspaces.add(name, dialect, url, now_ms=1, secret=secret))
    assert "aHVzaA" not in str(caught.value)
    assert [] == world.run(workspaces.names())


def test_added_once(world: World, workspaces: Workspaces) -> None:
    """A workspace is not made over another one."""
    first = world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    with pytest.raises(AlreadyExists):
        world.run(workspaces.add("acme", "sendexa", URL, now_ms=2))
    assert first.secrets == world.run(workspaces.require("acme")).secrets


def test_update(world: World, workspaces: Workspaces) -> None:
    """An update changes what it names and the revision, and keeps the rest."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    before = world.run(workspaces.require("acme"))
    world.run(workspaces.update("acme", callback_url="https://b.example/"))
    after = world.run(workspaces.require("acme"))
    assert ("https://b.example/", before.secrets, "zeckta") == (
        after.callback_url,
        after.secrets,
        after.dialect,
    )
    assert before.revision != after.revision
    with pytest.raises(NotFound):
        world.run(workspaces.update("nobody", max_concurrency=2))
    with pytest.raises(InvalidInput):
        world.run(workspaces.update("acme", max_concurrency=0))


def test_cache(world: World, workspaces: Workspaces) -> None:
    """A cached workspace is read again when its revision is another one; an unknown one is never cached."""
    cache = WorkspaceCache(workspaces)
    assert None is world.run(cache.get("acme"))
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    first = world.run(cache.get("acme"))
    assert first
    world.run(workspaces.update("acme", max_concurrency=3))
    assert first is world.run(cache.get("acme"))
    revision = world.run(workspaces.require("acme")).revision
    newer = world.run(cache.get("acme", revision))
    assert newer
    assert 3 == newer.max_concurrency


def test_remove(world: World, workspaces: Workspaces) -> None:
    """A workspace with waiting callbacks is removed only by force, and they are due at once then."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.accept(callback("e1"))
    world.run(world.ledger.stop(endpoint_id("acme https://a.example:443")))
    with pytest.raises(StillWaiting, match="1 callbacks"):
        world.run(workspaces.remove("acme", world.ledger))
    assert 1 == world.run(workspaces.remove("acme", world.ledger, force=True))
    assert [] == world.run(workspaces.names())
    with pytest.raises(NotFound):
        world.run(workspaces.remove("acme", world.ledger))
    assert world.now == world.call("zscore", world.keys.lane(endpoint_id("acme https://a.example:443")), "e1")
    world.deliver_all()


def test_encrypted(world: World) -> None:
    """With Fernet keys no secret is readable in Redis, and without them they cannot be opened."""
    sealed = Workspaces(world.client, world.keys, SecretBox([Fernet.generate_key().decode()]))
    made = world.run(sealed.add("acme", "zeckta", URL, now_ms=1))
    assert made.secrets[0].text.encode() not in world.call("hget", world.keys.workspace("acme"), "secrets")
    assert made.secrets == world.run(sealed.require("acme")).secrets
    blind = world.run(Workspaces(world.client, world.keys, SecretBox()).require("acme"))
    assert (True, ()) == (bool(blind.problem), blind.secrets)


def test_rotated_secret(world: World, workspaces: Workspaces) -> None:
    """The old secret signs beside the new one for the grace time, first in order, and not after it."""
    first = world.run(workspaces.add("acme", "zeckta", URL, now_ms=1000)).secrets[0]
    rotated = world.run(workspaces.rotate_secret("acme", now_ms=2000, grace_ms=500))
    second = rotated.secrets[-1]
    assert [first.text, second.text] == [secret.text for secret in rotated.live_secrets(2499)]
    assert [second.text] == [secret.text for secret in rotated.live_secrets(2500)]
    assert None is second.expires_ms


def test_three_live_secrets(world: World, workspaces: Workspaces) -> None:
    """A fourth live secret is refused; a grace time of 0 ends the others at once."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    for _ in range(2):
        world.run(workspaces.rotate_secret("acme", now_ms=2, grace_ms=1000))
    with pytest.raises(InvalidInput, match="3 secrets are live"):
        world.run(workspaces.rotate_secret("acme", now_ms=3, grace_ms=1000))
    assert 3 == len(world.run(workspaces.require("acme")).live_secrets(3))
    assert 1 == len(world.run(workspaces.rotate_secret("acme", now_ms=3, grace_ms=0)).secrets)


def test_grace_is_not_extended(world: World, workspaces: Workspaces) -> None:
    """A secret that is ending already ends no later by another rotation."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.run(workspaces.rotate_secret("acme", now_ms=1, grace_ms=100))
    rotated = world.run(workspaces.rotate_secret("acme", now_ms=50, grace_ms=1000))
    assert [101, 1050, None] == [secret.expires_ms for secret in rotated.secrets]


def test_headers(world: World, workspaces: Workspaces) -> None:
    """Headers are set, changed and removed one by one, whatever their case."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1, headers={"X-A": "1", "X-B": "2"}))
    changed = world.run(workspaces.update("acme", headers={"x-a": "3", "X-B": ""}))
    assert {"x-a": "3"} == changed.headers
    with pytest.raises(InvalidInput, match="dispatcher's own"):
        world.run(workspaces.update("acme", headers={"Host": "x"}))
    assert {"x-a": "3"} == world.run(workspaces.require("acme")).headers


def test_rotated_encryption(world: World) -> None:
    """All secrets are written anew under the newest key; the old one opens nothing any more."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    plain = Workspaces(world.client, world.keys, SecretBox())
    made = world.run(plain.add("acme", "zeckta", URL, now_ms=1, headers={"X-Key": "hush"}))
    for keys in ([old], [new, old]):
        assert 1 == world.run(Workspaces(world.client, world.keys, SecretBox(keys)).rotate_encryption())
    found = world.run(Workspaces(world.client, world.keys, SecretBox([new])).require("acme"))
    assert (made.secrets, {"X-Key": "hush"}, None) == (found.secrets, found.headers, found.problem)
    assert world.run(Workspaces(world.client, world.keys, SecretBox([old])).require("acme")).problem
    assert b"hush" not in b"".join(world.call("hgetall", world.keys.workspace("acme")).values())
