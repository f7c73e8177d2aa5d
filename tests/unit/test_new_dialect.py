"""A platform is added with one file: a copy of the packages gets one, and everything else finds it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DIALECT = '''
"""Aero: one event for delivered messages."""

from typing import Any

from dispatcher.model import Status, StatusChange
from dispatcher.rules.dialects import Signing

LOOKED_UP_BY = ("phone",)


def event_type(change: StatusChange) -> str | None:
    return "aero.delivered" if change.status is Status.DELIVERED else None


def body(change: StatusChange, event_type: str, now_ms: int) -> dict[str, Any]:
    return {"event": event_type, "id": change.message.uuid}


def headers(signing: Signing) -> dict[str, str]:
    return {"X-Aero-Attempt": str(signing.attempt)}
'''

USE = """
import asyncio, json
import fakeredis
from dispatcher import StatusChange
from dispatcher.rules.dialects import Signing, dialect_of
from dispatcher.rules.render import RenderOptions, render
from dispatcher.store.keys import Keys
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspaces import Workspaces
from tasks import command_docs

NOW_MS = 1_800_000_000_000

async def main():
    workspaces = Workspaces(fakeredis.FakeAsyncRedis(), Keys(), SecretBox())
    await workspaces.add("acme", "aero", "https://a.example/hooks", now_ms=NOW_MS)
    workspace = await workspaces.require("acme")
    message = {"uuid": "m1", "src": "ACME", "dest": "+233200000001"}
    change = StatusChange(workspace="acme", status="DELIVERED", timestamp="2027-01-15T08:00:00Z", message=message)
    one = render(change, workspace, NOW_MS, RenderOptions())
    headers = dialect_of(workspace.dialect).headers(Signing(one.event_id, one.body, ["s"], NOW_MS // 1000, 1))
    print(json.dumps({"body": one.body.decode(), "headers": headers, "commands": command_docs.written()}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, with one file more."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("dispatcher", "tasks", "config"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "dispatcher" / "rules" / "dialects" / "aero.py").write_text(DIALECT)
    return folder


def run(copy: Path, *args: str) -> str:
    environment: Mapping[str, str] = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "200"}
    command = [sys.executable, *args]
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_callback_is_made_in_it(copy: Path) -> None:
    """A workspace of the new dialect is added, its callback has the dialect's body and headers, and the docs list it."""
    done = json.loads(run(copy, "-c", USE))
    assert '{"event":"aero.delivered","id":"m1"}' == done["body"]
    assert {"X-Aero-Attempt": "1"} == done["headers"]
    assert "`--dialect` | One of: aero, namirial," in done["commands"]


def test_the_command_lists_it(copy: Path) -> None:
    """`dispatcher workspace add --help` names the new dialect."""
    assert "aero, namirial" in run(copy, "-m", "dispatcher", "workspace", "add", "--help")
