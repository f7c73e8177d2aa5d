"""What the README shows for a shell can be pasted into one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from dispatcher.model import StatusChange, timestamp_ms
from dispatcher.producer import ready
from tasks.redis_server import RedisServer, find_server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language: str, word: str) -> str:
    """The README's block of a language that has a word in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)
    return next(block for block in blocks if word in block)


@pytest.fixture
def shell(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """An environment in which redis-cli and dispatcher mean the test's server."""
    client = shutil.which("redis-cli") or str(Path(find_server()).with_name("redis-cli"))
    program = tmp_path / "redis-cli"
    program.write_text(f'#!/bin/sh\nexec {client} -s {redis_server.socket} "$@"\n')
    program.chmod(0o700)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "DISPATCHER_REDIS_URL": redis_url}


def queued(url: str) -> list[StatusChange]:
    """What is on the queue; a worker would take each of them now, and send it."""
    with redis.Redis.from_url(url) as client:
        changes = [
            StatusChange.from_json(fields[b"event"]) for _, fields in client.xrange("dispatcher:events")
        ]
    for change in changes:
        ready(change, round(time.time() * 1000))
        assert time.time() - 48 * 3600 < timestamp_ms(change.timestamp) / 1000
    return changes


def test_xadd_in_bash(shell: dict[str, str], redis_url: str) -> None:
    """The command puts a status change of now on the queue."""
    subprocess.run(["bash", "-c", block("bash", "XADD")], env=shell, check=True, stdout=subprocess.DEVNULL)
    (change,) = queued(redis_url)
    assert 0 <= time.time() - timestamp_ms(change.timestamp) / 1000 < 60
    assert "acme" == change.workspace


def test_xadd_at_the_prompt(shell: dict[str, str], redis_url: str) -> None:
    """The line for redis-cli's prompt, typed there, is a status change too: on one line, as it has to be."""
    (line,) = block("text", "XADD").splitlines()
    line = line.replace("2026-06-09T13:04:57", time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()))
    done = subprocess.run(
        ["redis-cli"], input=line + "\n", env=shell, capture_output=True, text=True, check=True
    )
    assert 1 == len(queued(redis_url)), done.stdout


def test_the_example_file(shell: dict[str, str], redis_url: str) -> None:
    """The README's command enqueues each line of the example file, and none is too old to be sent."""
    command = ["bash", "-c", "set -o pipefail; " + block("bash", "dispatcher enqueue")]
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True)
    lines = (ROOT / "examples" / "status-changes.jsonl").read_text().splitlines()
    assert (0, f"{len(lines)} status changes enqueued\n", "") == (done.returncode, done.stdout, done.stderr)
    assert [json.loads(line)["message"]["uuid"] for line in lines] == [
        one.message.uuid for one in queued(redis_url)
    ]


def test_an_old_file(shell: dict[str, str], redis_url: str) -> None:
    """Changes that are too old to be sent are enqueued all the same; the command says how many there are."""
    command = ["dispatcher", "enqueue", "examples/status-changes.jsonl"]
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True)
    lines = (ROOT / "examples" / "status-changes.jsonl").read_text().splitlines()
    assert (0, f"{len(lines)} status changes enqueued\n") == (done.returncode, done.stdout)
    assert done.stderr.startswith(f"{len(lines)} of them are older than 48 hours")


def test_an_old_file_of_which_some_lines_are_left_out(
    shell: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    """Those of an unknown workspace do not count among the old ones."""
    with redis.Redis.from_url(redis_url) as client:
        client.sadd("dispatcher:workspaces", "acme")
    old = (ROOT / "examples" / "status-changes.jsonl").read_text().splitlines()[0]
    document = json.loads(old)
    lines = [json.dumps(document | {"workspace": name}) for name in ("acme", "nobody", "nobody-else")]
    file = tmp_path / "lines"
    file.write_text("\n".join(lines))
    command = ["dispatcher", "enqueue", str(file), "--check", "--skip-invalid"]
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True)
    assert (0, "1 status change enqueued, 2 lines skipped\n") == (done.returncode, done.stdout)
    *_, last = done.stderr.splitlines()
    assert "1 of them is older than 48 hours, or than its ttlSeconds: it ends `expired`, unsent" == last


BAD_FILES = {
    "UTF-16": ("[]\n".encode("utf-16"), "is UTF-16: send UTF-8"),
    "BOM": (b"\xef\xbb\xbf{}\n", "starts with a byte order mark (BOM): send UTF-8 without one"),
    "gzip": (b"\x1f\x8b\x08\0", "is compressed (gzip): send it as it is"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_plain_text(shell: dict[str, str], tmp_path: Path, case: str) -> None:
    """A whole file in another encoding is one error, and not one for each line."""
    content, text = BAD_FILES[case]
    (tmp_path / "file.jsonl").write_bytes(content)
    command = ["dispatcher", "enqueue", str(tmp_path / "file.jsonl")]
    done = subprocess.run(command, env=shell, capture_output=True, text=True)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert text in done.stderr


def test_check(shell: dict[str, str], redis_url: str, tmp_path: Path) -> None:
    """With --check a line of an unknown workspace is invalid, beside those that are for other reasons."""
    with redis.Redis.from_url(redis_url) as client:
        client.sadd("dispatcher:workspaces", "acme")
    line = (ROOT / "examples" / "status-changes.jsonl").read_text().splitlines()[0]
    (tmp_path / "file.jsonl").write_text("\n".join([line, "{}", line.replace('"acme"', '"acne"')]))
    command = ["dispatcher", "enqueue", "--check", str(tmp_path / "file.jsonl")]
    done = subprocess.run(command, env=shell, capture_output=True, text=True)
    assert 2 == done.returncode
    assert "line 2: workspace: is required" in done.stderr
    assert "line 3: workspace: there is no workspace 'acne'" in done.stderr
    assert "2 of 3 lines are invalid" in done.stderr
    assert [] == queued(redis_url)
