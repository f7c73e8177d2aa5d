"""Ed25519 keys and the Authorization header of subscriptions, on a real server."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from dispatcher.errors import InvalidInput
from dispatcher.rules.authorization import Authorization, Basic, Bearer, ClientCredentials
from dispatcher.rules.subscription import Receiver
from dispatcher.rules.workspace import Workspace
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions, found
from dispatcher.store.workspaces import Workspaces
from tests.world import World

BOTH = pytest.mark.parametrize("name", ["default", "crm"])


class Acme:
    """A workspace with a subscription crm; all is sealed with one key."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys = [Fernet.generate_key().decode()]
        self.workspaces, self.subscriptions = self.opened_with(self.keys)
        world.run(self.workspaces.add("acme", "zeckta", "https://a.example/", now_ms=1))
        self.add("crm")

    def opened_with(self, keys: list[str]) -> tuple[Workspaces, Subscriptions]:
        """The same with other keys to seal and open with."""
        workspaces = Workspaces(self.world.client, self.world.keys, SecretBox(keys))
        return workspaces, Subscriptions(workspaces)

    def add(self, name: str, **terms: Any) -> Workspace:
        """Adds a subscription."""
        return self.world.run(
            self.subscriptions.add("acme", name, f"https://{name}.example/", now_ms=1, **terms)
        )

    def update(self, name: str, **terms: Any) -> Workspace:
        """Changes a subscription."""
        return self.world.run(self.subscriptions.update("acme", name, now_ms=2, **terms))

    def rotate(self, name: str, now_ms: int, grace_ms: int = 100) -> Receiver:
        """Gives it a new secret and key."""
        rotating = self.subscriptions.rotate_secret("acme", name, now_ms=now_ms, grace_ms=grace_ms)
        return found(self.world.run(rotating), name)

    def read(self, name: str = "default") -> Receiver:
        """A subscription as it is now."""
        return found(self.world.run(self.workspaces.require("acme")), name)

    @property
    def stored(self) -> dict[bytes, bytes]:
        """What is in Redis."""
        fields: dict[bytes, bytes] = self.world.call("hgetall", self.world.keys.workspace("acme"))
        return fields


@pytest.fixture
def acme(world: World) -> Acme:
    """The workspace."""
    return Acme(world)


@BOTH
def test_a_key_pair_while_it_is_on(acme: Acme, name: str) -> None:
    """Switched on there is a key pair, and switched on again the same; switched off it is gone; others have none."""
    assert acme.read(name).signature == "hmac"
    on = acme.update(name, signature="ed25519")
    assert acme.read(name).signature == "ed25519"
    assert acme.update(name, signature="ed25519").revision == on.revision
    assert acme.read("crm" if name == "default" else "default").signing_keys == ()
    acme.update(name, signature="hmac")
    assert acme.read(name).signing_keys == ()
    assert not [field for field in acme.stored if field.startswith(b"signing_keys")]
    acme.update(name, signature="ed25519")
    assert acme.read(name).signing_keys != found(on, name).signing_keys


@BOTH
def test_rotated_with_the_secret(acme: Acme, name: str) -> None:
    """Old and new key sign for the grace time; the old one no longer."""
    acme.update(name, signature="ed25519")
    [old] = acme.read(name).signing_keys
    rotated = acme.rotate(name, 1000)
    new = rotated.signing_keys[-1]
    assert [one.text for one in rotated.live_keys(1099)] == [old.text, new.text]
    assert [one.text for one in rotated.live_keys(1100)] == [new.text]
    assert len(rotated.live_secrets(1099)) == 2


def test_the_workspaces_own_command_rotates_it_too(acme: Acme, world: World) -> None:
    """`workspace rotate-secret` is for the default subscription."""
    acme.update("default", signature="ed25519")
    world.run(acme.workspaces.rotate_secret("acme", now_ms=1000, grace_ms=100))
    assert len(acme.read().live_keys(1099)) == 2


@BOTH
def test_auth_is_kept_sealed(acme: Acme, name: str) -> None:
    """It is set, replaced and removed; neither it nor a key is readable in Redis."""
    first = ClientCredentials("https://login.example/hush", "hush", "hush", "hush", "hush")
    second = Bearer("hush-hush")
    acme.update(name, auth=Basic("user", "hush-hush"))
    acme.update(name, auth=first, signature="ed25519")
    assert acme.read(name).auth == first
    assert b"hush" not in b"".join(acme.stored.values())
    assert b"whsk_" not in b"".join(acme.stored.values())
    changed = acme.update(name, auth=second)
    assert acme.read(name).auth == second
    assert acme.update(name, auth=second).revision == changed.revision
    acme.update(name, max_concurrency=3)
    assert acme.read(name).auth == second
    acme.update(name, auth="none")
    assert acme.read(name).auth is None
    assert not [field for field in acme.stored if field.startswith(b"auth")]


def test_added_with_both(acme: Acme) -> None:
    """A new subscription has them at once; removed, nothing of it is left."""
    before = set(acme.stored)
    acme.add("new", auth=Bearer("t"), signature="ed25519")
    assert (acme.read("new").auth, acme.read("new").signature) == (Bearer("t"), "ed25519")
    acme.world.run(acme.subscriptions.remove("acme", "new", acme.world.ledger))
    assert set(acme.stored) == before


@BOTH
def test_an_own_header_and_auth_exclude_each_other(acme: Acme, name: str) -> None:
    """In both directions, and nothing is changed; both may change in one update."""
    acme.update(name, headers={"authorization": "Basic x"})
    with pytest.raises(InvalidInput, match="exclude each other"):
        acme.update(name, auth=Bearer("t"))
    assert acme.read(name).auth is None
    acme.update(name, auth=Bearer("t"), headers={"Authorization": ""})
    assert (acme.read(name).auth, acme.read(name).headers) == (Bearer("t"), {})
    with pytest.raises(InvalidInput, match="exclude each other"):
        acme.update(name, headers={"Authorization": "Basic x"})
    with pytest.raises(InvalidInput, match="exclude each other"):
        acme.add("new", auth=Bearer("t"), headers={"Authorization": "Basic x"})
    acme.update(name, auth="none", headers={"Authorization": "Basic x"})
    assert acme.read(name).auth is None


def test_the_workspaces_own_command_refuses_it_too(acme: Acme, world: World) -> None:
    """`workspace update --header` is for the default subscription."""
    acme.update("default", auth=Bearer("t"))
    with pytest.raises(InvalidInput, match="exclude each other"):
        world.run(acme.workspaces.update("acme", now_ms=1, headers={"Authorization": "Basic x"}))


def test_an_unknown_signature(acme: Acme) -> None:
    """The error names the known ones, and nothing is changed."""
    with pytest.raises(InvalidInput, match="signature is one of hmac, ed25519, not 'rsa'"):
        acme.update("crm", signature="rsa")
    assert acme.read("crm").signature == "hmac"


SEALED: dict[str, dict[str, Any]] = {
    "secrets": {},
    "headers": {"headers": {"X-Key": "k"}},
    "signing_keys": {"signature": "ed25519"},
    "auth": {"auth": Bearer("t")},
}


@pytest.mark.parametrize("name", ["default", "crm"])
@pytest.mark.parametrize("field", SEALED)
@pytest.mark.parametrize("how", ["a key that is gone", "damaged"])
def test_what_cannot_be_unsealed_stops_that_one_alone(
    acme: Acme, world: World, name: str, field: str, how: str
) -> None:
    """It has no secret and says why; the other one has all it needs. Its limits can be set, and nothing is lost by it."""
    acme.add("billing", auth=Bearer("b"), signature="ed25519")
    acme.update(name, **SEALED[field])
    stored = field if name == "default" else f"{field}:{name}"
    box = SecretBox(acme.keys) if how == "damaged" else SecretBox([Fernet.generate_key().decode()])
    sealed = box.seal(b'{"type":' if how == "damaged" else b"[]")
    world.call("hset", world.keys.workspace("acme"), stored, sealed)
    stopped = acme.read(name)
    assert stopped.problem
    assert (stopped.secrets, stopped.signing_keys, stopped.auth) == ((), (), None)
    with pytest.raises(InvalidInput):
        stopped.live_secrets(1)
    for other in {"default", "crm", "billing"} - {name}:
        assert acme.read(other).problem is None
        assert acme.read(other).live_secrets(1)
    assert acme.read("billing").auth == Bearer("b")
    acme.update(name, max_concurrency=3)
    assert acme.stored[stored.encode()] == sealed
    for refused in ({"signature": "hmac"}, {"auth": "none"}):
        with pytest.raises(InvalidInput):
            acme.update(name, **refused)


def test_sealed_anew(acme: Acme, world: World) -> None:
    """`rotate-encryption` seals keys and auth with the newest key, too."""
    wanted: dict[str, Authorization] = {
        "default": Basic("u", "p"),
        "crm": ClientCredentials("https://login.example/", "id", "s", "a b", "c"),
    }
    for name, auth in wanted.items():
        acme.update(name, auth=auth, signature="ed25519")
    before = {name: acme.read(name).signing_keys for name in wanted}
    new = Fernet.generate_key().decode()
    world.run(acme.opened_with([new, *acme.keys])[0].rotate_encryption())
    acme.workspaces, _ = acme.opened_with([new])
    assert {name: acme.read(name).auth for name in wanted} == wanted
    assert {name: acme.read(name).signing_keys for name in wanted} == before
