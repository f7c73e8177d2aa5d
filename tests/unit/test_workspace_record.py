"""A workspace as the fields of a hash, without Redis."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from dispatcher.errors import InvalidInput
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.store.sealing import SecretBox, generate_secret
from dispatcher.store.workspace_record import WorkspaceRecord, as_stored

SECRET = Secret(generate_secret(), 1_800_000_000_000)


def fields(record: WorkspaceRecord) -> dict[str, Any]:
    """What is written of a workspace that has everything."""
    return {
        "dialect": "qlara",
        "secrets": record.seal([SECRET]),
        "headers": record.seal({"X-Key": "k"}),
        "created": 5,
        "revision": "r1",
        "webhook": 6,
    } | record.settable("https://a.example/hooks", 20, 1.5, "strict")


def test_read_again() -> None:
    """What was written is read as it was, secrets and headers opened."""
    record = WorkspaceRecord(SecretBox([Fernet.generate_key().decode()]))
    assert Workspace(
        "acme",
        "qlara",
        "https://a.example/hooks",
        (SECRET,),
        5,
        "r1",
        {"X-Key": "k"},
        20,
        1.5,
        "strict",
        6,
    ) == record.read("acme", as_stored(fields(record)))


def test_key_is_gone() -> None:
    """Where no key opens the secrets, all else of the workspace is read, and it says what is wrong."""
    sealed = fields(WorkspaceRecord(SecretBox([Fernet.generate_key().decode()])))
    found = WorkspaceRecord(SecretBox()).read("acme", as_stored(sealed))
    assert ("https://a.example/hooks", (), {}, 20) == (
        found.callback_url,
        found.secrets,
        found.headers,
        found.max_concurrency,
    )
    assert "DISPATCHER_SECRET_KEYS is not set" in (found.problem or "")


@pytest.mark.parametrize(
    "given",
    [
        {"callback_url": "http://a.example/hooks"},
        {"max_concurrency": 0},
        {"max_concurrency": 1001},
        {"rate_per_second": 0.0001},
        {"rate_per_second": 10_001},
        {"ordering": "random"},
    ],
)
def test_refused(given: dict[str, Any]) -> None:
    """What a workspace may not have is refused before anything is written."""
    with pytest.raises(InvalidInput):
        WorkspaceRecord(SecretBox()).settable(**given)


def test_only_what_is_given() -> None:
    """A field that is not given stays as it is; a rate of 0 is given, and means no limit."""
    assert {"rate_per_second": 0.0} == WorkspaceRecord(SecretBox()).settable(rate_per_second=0.0)
