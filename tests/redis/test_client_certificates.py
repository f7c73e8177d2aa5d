"""Client certificates of subscriptions on a real server: sealed, and known by when they end."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from redis.asyncio.client import Pipeline

from dispatcher.errors import InvalidInput, OtherFormat
from dispatcher.rules.certificate_check import client_certificate
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.store.client_certificates import MOST_SHOWN, WARN_MS, ClientCertificates
from dispatcher.store.format import FORMAT, WITH_CREDENTIALS, WITH_SUBSCRIPTIONS
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions, found
from dispatcher.store.workspaces import Workspaces
from tests.client_certificates import ClientAuthority
from tests.world import World


def now_ms() -> int:
    """Certificates are made when a test runs, so this is no constant."""
    return round(time.time() * 1000)


BOTH = pytest.mark.parametrize("name", ["default", "crm"])


class Acme:
    """A workspace with a subscription crm, and an authority."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.authority = ClientAuthority(folder)
        self.workspaces = Workspaces(world.client, world.keys, SecretBox([Fernet.generate_key().decode()]))
        self.subscriptions = Subscriptions(self.workspaces)
        self.certificates = ClientCertificates(world.client, world.keys)
        world.run(self.workspaces.add("acme", "zeckta", "https://a.example/", now_ms=1))
        world.run(self.subscriptions.add("acme", "crm", "https://crm.example/", now_ms=1))

    def issue(self, days: float = 10, name: str = "acme") -> ClientCertificate:
        """A certificate that ends in so many days."""
        pair = self.authority.issue(name, days=days)
        return client_certificate(pair.certificate, pair.key, now_ms())

    def update(self, name: str, **terms: Any) -> str:
        """Changes a subscription; the workspace's revision."""
        return self.world.run(self.subscriptions.update("acme", name, now_ms=2, **terms)).revision

    def read(self, name: str) -> ClientCertificate | None:
        """A subscription's certificate as it is now."""
        return found(self.world.run(self.workspaces.require("acme")), name).client_certificate

    def ending(self, at_ms: int | None = None) -> list[tuple[str, str, int]]:
        """Which end soon."""
        return [
            (one.workspace, one.subscription, one.ends_ms)
            for one in self.world.run(self.certificates.ending(at_ms or now_ms()))
        ]

    @property
    def stored(self) -> dict[bytes, bytes]:
        """What is in Redis."""
        fields: dict[bytes, bytes] = self.world.call("hgetall", self.world.keys.workspace("acme"))
        return fields


@pytest.fixture
def acme(world: World, tmp_path: Path) -> Acme:
    """The workspace."""
    return Acme(world, tmp_path)


@BOTH
def test_set_replaced_and_removed(acme: Acme, name: str) -> None:
    """It is sealed; the one that is in force is known by its end; an equal one changes nothing."""
    first, second = acme.issue(3), acme.issue(5)
    revision = acme.update(name, client_certificate=first)
    assert acme.read(name) == first
    assert acme.ending() == [("acme", name, first.ends_ms)]
    assert acme.update(name, client_certificate=first) == revision
    assert b"PRIVATE KEY" not in b"".join(acme.stored.values())
    acme.update(name, max_concurrency=3)
    assert acme.read(name) == first
    acme.update(name, client_certificate=second)
    assert acme.read(name) == second
    assert acme.ending() == [("acme", name, second.ends_ms)]
    acme.update(name, client_certificate="none")
    assert (acme.read(name), acme.ending()) == (None, [])
    assert not [field for field in acme.stored if b"certificate" in field]


def test_which_are_told(acme: Acme, world: World) -> None:
    """Those that end within two weeks and those that have ended, the first first."""
    soon, later = acme.issue(10), acme.issue(90)
    acme.update("crm", client_certificate=later)
    acme.update("default", client_certificate=soon)
    both = [("acme", "default", soon.ends_ms), ("acme", "crm", later.ends_ms)]
    assert acme.ending() == both[:1]
    assert acme.ending(later.ends_ms - WARN_MS - 1) == both[:1]
    assert acme.ending(later.ends_ms - WARN_MS) == both
    assert acme.ending(later.ends_ms + 1) == both
    ended = {f"w{n} default": n for n in range(MOST_SHOWN)}
    world.call("zadd", world.keys.client_certificates, ended)
    found = acme.ending()
    assert len(found) == MOST_SHOWN
    assert found[-1:] == both[:1], "those that ended long ago do not hide it"
    assert found[0][0] == "w1"


def test_told_again_after_the_list_was_lost(acme: Acme, world: World) -> None:
    """The next change of a workspace notes all of its certificates again."""
    one = acme.issue()
    acme.update("crm", client_certificate=one)
    world.call("delete", world.keys.client_certificates)
    acme.update("default", max_concurrency=7)
    assert [("acme", "crm", one.ends_ms)] == acme.ending()


def test_added_with_one_and_removed(acme: Acme, world: World) -> None:
    """Nothing is left of it: not of a subscription, and not of a workspace."""
    before = set(acme.stored)
    one = acme.issue()
    adding = acme.subscriptions.add("acme", "new", "https://new.example/", now_ms=1, client_certificate=one)
    world.run(adding)
    assert acme.read("new") == one
    world.run(acme.subscriptions.remove("acme", "new", world.ledger))
    assert set(acme.stored) == before
    assert acme.ending() == []
    acme.update("crm", client_certificate=one)
    acme.update("default", client_certificate=one)
    assert len(acme.ending()) == 2
    world.run(acme.workspaces.remove("acme", world.ledger))
    assert acme.ending() == []


def test_set_while_its_workspace_is_removed(
    acme: Acme, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it, in whatever moment it comes."""
    one, asked = acme.issue(), Pipeline.smembers

    async def meanwhile(self: Any, key: str) -> Any:
        monkeypatch.setattr(Pipeline, "smembers", asked)
        found = await asked(self, key)
        await acme.subscriptions.update("acme", "crm", client_certificate=one, now_ms=2)
        return found

    monkeypatch.setattr(Pipeline, "smembers", meanwhile)
    world.run(acme.workspaces.remove("acme", world.ledger))
    assert acme.ending() == []
    assert not acme.stored


def test_nothing_to_remove_changes_no_format(world: World, tmp_path: Path) -> None:
    """What sets nothing shuts no earlier version out."""
    workspaces = Workspaces(world.client, world.keys, SecretBox())
    world.run(workspaces.add("acme", "zeckta", "https://a.example/", now_ms=1))
    nothing: dict[str, Any] = {
        "client_certificate": "none",
        "auth": "none",
        "signature": "hmac",
        "events": [],
    }
    before = world.run(world.installation.format())
    world.run(Subscriptions(workspaces).update("acme", "default", now_ms=2, **nothing))
    assert world.run(world.installation.format()) == before


def test_one_that_cannot_be_unsealed(acme: Acme, world: World) -> None:
    """Its end stays known while the key is gone, since it comes with the key; removed, it is known no more."""
    one = acme.issue()
    acme.update("crm", client_certificate=one)
    lost = Workspaces(world.client, world.keys, SecretBox([Fernet.generate_key().decode()]))
    known = world.run(lost.require("acme"))
    assert known.subscriptions["crm"].problem
    with pytest.raises(InvalidInput, match="no key in DISPATCHER_SECRET_KEYS"):
        world.run(Subscriptions(lost).update("acme", "crm", client_certificate=one, now_ms=2))
    world.run(Subscriptions(lost).update("acme", "crm", max_concurrency=3, now_ms=2))
    assert acme.ending() == [("acme", "crm", one.ends_ms)]
    world.run(Subscriptions(lost).remove("acme", "crm", world.ledger))
    assert acme.ending() == []


def test_encrypted_anew(acme: Acme, world: World) -> None:
    """`rotate-encryption` takes it along."""
    one = acme.issue()
    acme.update("crm", client_certificate=one)
    sealed = acme.stored[b"client_certificate:crm"]
    world.run(acme.workspaces.rotate_encryption())
    assert acme.stored[b"client_certificate:crm"] != sealed
    assert acme.read("crm") == one
    assert acme.ending() == [("acme", "crm", one.ends_ms)]


def test_versions_that_do_not_know_it_are_shut_out(acme: Acme, world: World) -> None:
    """They would post without it. While one is alive it is refused, in one line; nothing is changed, and the rest works."""
    heartbeats = {"new@host/1": [2, 3, 4], "old@host/2": [2, 3]}
    for name, formats in heartbeats.items():
        heartbeat = json.dumps({"format": FORMAT, "formats": formats})
        world.run(world.ledger.wake(1, name, heartbeat))
    with pytest.raises(
        OtherFormat, match=r"^worker old@host/2 is of a version that does not know client .*$"
    ):
        acme.update("crm", client_certificate=acme.issue())
    assert acme.read("crm") is None
    acme.update("crm", max_concurrency=2, events=[])
    assert world.run(world.installation.format()) == str(WITH_SUBSCRIPTIONS)
    world.run(world.ledger.leave("old@host/2"))
    acme.update("crm", client_certificate=acme.issue())
    assert world.run(world.installation.format()) == str(WITH_CREDENTIALS)
    world.run(acme.subscriptions.add("acme", "new", "https://new.example/", now_ms=1))
    assert world.run(world.installation.format()) == str(WITH_CREDENTIALS)
    world.run(world.ledger.leave("new@host/1"))
