"""The README's code runs."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

import dispatcher
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.signing import key_of, webhook_headers
from tasks import command_docs

ROOT = Path(__file__).parents[2]
SECRET = "whsec_" + "QUJD" * 10
BODY = b'{"eventType":"MESSAGE_SENT"}'


def code(language: str, word: str) -> str:
    """The README's block of a language that has a word in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    return next(block for block in blocks if word in block)


def test_demo_by_line_20() -> None:
    """The first command comes early."""
    assert "make demo" in "\n".join((ROOT / "README.md").read_text().splitlines()[:20])


def test_enqueue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example makes a valid status change and enqueues it."""
    enqueued: list[Any] = []
    fake = SimpleNamespace(enqueue=lambda change: enqueued.append(change) or [change.event_id])
    monkeypatch.setattr(dispatcher.Dispatcher, "from_url", lambda _url: fake)
    names: dict[str, Any] = {}
    exec(code("python", "enqueue("), names)
    assert names["event_ids"] == [enqueued[0].event_id]


def test_every_field_is_documented() -> None:
    """The document of a status change shows every field, and is valid."""
    text = (ROOT / "docs" / "status-change.md").read_text()
    shown = json.loads(re.search(r"```json\n(.*?)```", text, re.S).group(1))  # type: ignore[union-attr]
    dispatcher.StatusChange.from_dict(shown)
    fields = dispatcher.StatusChange.model_json_schema(by_alias=True)["properties"]
    assert set(fields) == set(shown)
    assert set(dispatcher.Message.model_json_schema(by_alias=True)["properties"]) == set(shown["message"])


def test_verify_in_python() -> None:
    """The example takes what is signed well, and refuses what is not."""
    names: dict[str, Any] = {}
    exec(code("python", "verify("), names)
    headers = signed()
    assert (200, "MESSAGE_SENT") == names["handle"](headers, BODY, SECRET)
    assert 401 == names["handle"](headers, BODY + b" ", SECRET)[0]


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
def test_verify_in_node() -> None:
    """The Node.js example takes what is signed well, and refuses another body, secret or time."""
    headers = signed()
    old = headers | {"webhook-timestamp": "1000"}
    cases = [
        (headers, BODY, SECRET),
        (headers, BODY + b" ", SECRET),
        (headers, BODY, SECRET[:-4] + "QUJE"),
        (old, BODY, SECRET),
    ]
    calls = ", ".join(
        f"verify({json.dumps(given)}, Buffer.from({json.dumps(body.decode())}), {json.dumps(secret)})"
        for given, body, secret in cases
    )
    script = f"{code('js', 'verify(')}\nconsole.log(JSON.stringify([{calls}]));"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert [True, False, False, False] == json.loads(done.stdout)


def signed() -> dict[str, str]:
    """Headers of a callback that is signed now, with an old secret beside the live one."""
    return webhook_headers([b"x" * 32, key_of(SECRET)], "e1", int(time()), BODY)


def test_every_error_is_documented() -> None:
    """The table of an attempt's words has each that there is."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert [] == [word for word in ERRORS if f"`{word}`" not in text]


def test_security_names_tests_that_exist() -> None:
    """Each test that the table of threats names is there."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs" / "security.md").read_text()))
    assert named
    assert [] == [path for path in sorted(named) if not (ROOT / path).exists()]


def test_commands_exist() -> None:
    """Each command that the README shows for a console, also for a container, is one that there is."""
    text = (ROOT / "README.md").read_text()
    lines = [
        line
        for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
        for line in block.splitlines()
    ]
    shown = [found[1] for line in lines if (found := re.search(r"[$r] dispatcher ([a-z -]+[a-z])", line))]
    known = [name.split() for name in re.findall(r"^## dispatcher (.*)$", command_docs.written(), re.M)]
    assert len(shown) > 5
    assert [] == [one for one in shown if not any(name == one.split()[: len(name)] for name in known)]


def test_compose_version() -> None:
    """README and compose file name the least version of Docker Compose, and where the passwords are it is not for others."""
    for name in ("README.md", "docker-compose.yml"):
        text = (ROOT / name).read_text()
        assert "Docker Compose 2.24 or later" in text
        assert text.index("chmod 600 .env") < text.index(">> .env")
