"""A log line that cannot be written, or made, is lost and counted; nothing else happens."""

import fcntl
import json
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from config import log_lines, logs
from config.log_lines import LIMIT, PIECE, Lines
from tests.acceptance.stack import wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reading end, its writing end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def fill(writing: int) -> None:
    """Writes until the pipe takes no more."""
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    """What several threads put comes out whole, each thread's in its order, and `flush` waits for it."""
    reading, writing = pipe
    lines = Lines(writing)

    def put(name: str) -> None:
        for number in range(500):
            lines.put(f"{name} {number}\n")

    threads = [threading.Thread(target=put, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.flush()
    found = os.read(reading, 1_000_000).decode().splitlines()
    assert [f"a {number}" for number in range(500)] == [line for line in found if line[0] == "a"]
    assert [f"b {number}" for number in range(500)] == [line for line in found if line[0] == "b"]
    assert 0 == lines.lost


def test_lines_of_a_while_are_written_together(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write the thread rests, and whoever waits for what is left does not wait for that."""
    monkeypatch.setattr(log_lines, "LINGER_SECONDS", 3600)
    reading, writing = pipe
    lines = Lines(writing)
    lines.put("first\n")
    assert b"first\n" == os.read(reading, 100)
    for number in range(100):
        lines.put(f"{number}\n")
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1000)
    lines.flush(30)
    assert 100 == os.read(reading, 1000).count(b"\n")


def test_full_device() -> None:
    """Lines to a full device are lost, one by one."""
    with open("/dev/full", "wb") as full:
        lines = Lines(full.fileno())
        for number in range(3):
            lines.put(f"{number}\n")
        lines.flush()
    assert 3 == lines.lost


def test_reader_gone(pipe: tuple[int, int]) -> None:
    """Lines to a pipe whose reader has gone are lost."""
    reading, writing = pipe
    os.close(reading)
    lines = Lines(writing)
    lines.put("a\n")
    lines.flush()
    assert 1 == lines.lost


def test_no_descriptor() -> None:
    """Where the process began with standard error closed, lines are lost."""
    lines = Lines(None)
    lines.put("a\n")
    lines.flush()
    assert 1 == lines.lost


def test_pipe_nobody_reads(pipe: tuple[int, int]) -> None:
    """Nothing waits for a pipe that nobody reads: what is beyond the bound is lost, said once when somebody reads."""
    reading, writing = pipe
    fill(writing)
    lines = Lines(writing)
    lines.put("first\n")
    wait_until(lambda: not lines._waiting)
    line = "x" * (LIMIT // 10 - 1) + "\n"
    for _ in range(13):
        lines.put(line)
    assert 3 == lines.lost
    read = bytearray()
    while not read.endswith(b"x\n") or read.count(b"x\n") < 10:
        read += os.read(reading, 1_000_000)
    lines.put("last\n")
    lines.flush()
    read += os.read(reading, 1_000_000)
    assert (1, 1) == (read.count(b"first\n"), read.count(b"last\n"))
    assert 1 == read.count(b"3 log lines were lost\n")


def test_lost_lines_are_said_once(tmp_path: Path) -> None:
    """When the device takes lines again, the first thing it gets is how many were lost; a torn line stays on its own."""
    with (tmp_path / "log").open("wb") as file, open("/dev/full", "wb") as full:
        other = os.dup(file.fileno())
        lines = Lines(other)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len("before\ntor"), hard))
        try:
            lines.put("before\ntorn\n")
            lines.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        os.dup2(full.fileno(), other)
        lines.put("lost\n")
        lines.put("lost\n")
        lines.flush()
        os.dup2(file.fileno(), other)
        for _ in range(2):
            lines.put("after\n")
            lines.flush()
        os.close(other)
    assert ["before", "tor", "3 log lines were lost", "after", "after"] == (
        tmp_path / "log"
    ).read_text().splitlines()


def test_somebody_elses_nonblocking(pipe: tuple[int, int]) -> None:
    """A pipe that another process made non-blocking loses no line while its reader is slow."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    lines = Lines(writing)
    lines.put(("y" * 99 + "\n") * 2000)
    read = b""
    while len(read) < 200_000:
        read += os.read(reading, 1000)
    lines.flush()
    assert (2000, 0) == (read.count(b"y\n"), lines.lost)


def test_pieces_end_with_lines(pipe: tuple[int, int]) -> None:
    """A write ends where a line does, so that what several processes write to one pipe stays whole lines."""
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4 * PIECE)
    lines = Lines(writing)
    lines.put(("z" * 999 + "\n") * (PIECE // 1000 * 2))
    lines.flush()
    first = os.read(reading, PIECE)
    assert b"\n" == first[PIECE // 1000 * 1000 - 1 : PIECE // 1000 * 1000]
    assert 0 == lines.lost


class Rude:
    """Whatever one asks it, it raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is logged, as JSON."""
    found: list[dict[str, Any]] = []
    root = logging.getLogger()
    before = root.handlers, root.level
    logs.configure("INFO", "json")
    monkeypatch.setattr(logs.errors, "put", lambda text: found.append(json.loads(text)))
    yield found
    root.handlers, root.level = before
    structlog.reset_defaults()


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize("value", ["\ud800", 2**70, Rude(), {Rude(): 1}, b"\xff", float("nan"), DEEP])
def test_odd_values_are_shown(written: list[dict[str, Any]], value: object) -> None:
    """A line with a value that cannot be written as JSON is written all the same, with its other fields."""
    lost = logs.lost()
    structlog.get_logger().warning("odd", value=value, event_id="evt_1")
    assert [("odd", "evt_1")] == [(line["event"], line["event_id"]) for line in written]
    assert lost == logs.lost()


def test_libraries_lines_that_cannot_be_made(written: list[dict[str, Any]]) -> None:
    """A library's line whose arguments do not fit is lost, and counted; nothing is printed, nothing raised."""
    (handler,) = (one for one in logging.getLogger().handlers if type(one).__module__ == logs.__name__)
    lost = logs.lost()
    handler.handle(logging.LogRecord("celery", logging.WARNING, "", 0, "%d of %s", ("one", Rude()), None))
    consumer = "celery.worker.consumer.consumer"
    handler.handle(logging.LogRecord(consumer, logging.WARNING, "", 0, "%d of %s", ("one", Rude()), None))
    handler.handle(logging.LogRecord("celery", logging.WARNING, "", 0, "fine", (), None))
    assert ["fine"] == [line["event"] for line in written]
    assert lost + 2 == logs.lost()


def test_each_reason_for_an_outage_is_told_once(
    written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery says at each try why it cannot reach the broker; a line is one reason, as long as it stays the same."""
    monkeypatch.setattr(logs, "_consumer_said", {})
    consumer = logging.getLogger("celery.worker.consumer.consumer")
    for reason in ("Connection refused", "invalid password"):
        for number in (1, 2):
            again = f"Trying again in {number}.00 seconds... ({number}/100)"
            consumer.error("consumer: Cannot connect to %s: %s.\n%s\n", "redis://h", reason, again)
    said = [line["event"].partition("\n")[0].rpartition(": ")[2] for line in written]
    assert ["Connection refused.", "invalid password."] == said


def test_a_connection_that_comes_and_goes_is_told_once(
    written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often Celery connects and loses the connection; after a minute without it is told again."""
    monkeypatch.setattr(logs, "_consumer_said", {})
    (handler,) = (one for one in logging.getLogger().handlers if type(one).__module__ == logs.__name__)
    for at in (0, 50, 100, 161):
        for name, level, text in (("connection", "INFO", "Connected"), ("consumer", "WARNING", "lost")):
            record = logging.LogRecord(
                f"celery.worker.consumer.{name}", getattr(logging, level), "", 0, text, (), None
            )
            record.created = at
            handler.handle(record)
    assert ["Connected", "lost"] * 2 == [line["event"] for line in written]


def test_streams_that_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a standard stream: prints go to the lines; Celery's handlers find no descriptor to wait for."""
    monkeypatch.setattr(logs, "_prints_json", False)
    texts: list[str] = []
    lines = Lines(None)
    lines.put = texts.append  # type: ignore[method-assign]
    stream: Any = logs.HiddenStream(lines, None, "info")
    print("a", "b", file=stream, flush=True)
    assert ("a b\n", None, False) == ("".join(texts), stream.fileno(), stream.isatty())


def test_what_prints_where_logs_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where logs are JSON each printed line is one, also one that comes in pieces, or that nothing ends."""
    monkeypatch.setattr(logs, "_prints_json", True)
    texts: list[str] = []
    lines = Lines(None)
    lines.put = texts.append  # type: ignore[method-assign]
    stream = logs.PrintedStream(lines, None, "warning")
    for piece in ("a ", '"b"\nc', "\n\n", "d"):
        stream.write(piece)
    stream.flush()
    found = [json.loads(line) for line in "".join(texts).splitlines()]
    assert [('a "b"', "warning"), ("c", "warning"), ("d", "warning")] == [
        (f["event"], f["level"]) for f in found
    ]
    assert all(line["timestamp"].endswith("Z") for line in found)


LAST_WORDS = """
import os, sys
from config import logs
logs.configure("INFO", "json")
logs.guard_standard_streams()
import structlog
structlog.get_logger().warning("first")
print("printed")
if sys.argv[1] == "raise":
    raise RuntimeError("the end")
if sys.argv[1] == "exit":
    logs.flush()
    os._exit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 3)])
def test_last_words(how: str, code: int) -> None:
    """What was logged and printed before an end of any kind is on the device."""
    done = subprocess.run(
        [sys.executable, "-c", LAST_WORDS, how], capture_output=True, text=True, check=False, timeout=30
    )
    assert (code, how == "raise") == (done.returncode, "RuntimeError: the end" in done.stderr)
    assert '"event":"first"' in done.stderr


def test_end_with_a_blocked_pipe(pipe: tuple[int, int]) -> None:
    """A process whose standard error nobody reads ends all the same."""
    _, writing = pipe
    fill(writing)
    done = subprocess.run(
        [sys.executable, "-c", LAST_WORDS, "return"], stdout=writing, stderr=writing, check=False, timeout=30
    )
    assert 0 == done.returncode
