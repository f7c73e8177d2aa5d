"""Where a status change belongs: every one comes to one partition, in at most two steps."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model import StatusChange
from dispatcher.rules.partitions import EarlierWidth, Partitioning
from dispatcher.rules.workspace import Workspace
from dispatcher.store.queue import QueueEntry
from dispatcher.worker import router
from dispatcher.worker.router import Router, came_from
from tests.messages import change

CODE = Partitioning(4)
AT_HOME = CODE.home("acme")


def record(width: int) -> Workspace:
    return Workspace("acme", "zeckta", "https://a.example/hooks", (), 1, "r", width=width)


def entry(source: int | None = None, entry_id: str = "1-0") -> QueueEntry:
    came = [] if source is None else [b"from", f"{source} 1-0 abc".encode()]
    return QueueEntry(entry_id, [b"event", b"{}", *came])


def route(
    here: int,
    one: StatusChange,
    copies: dict[int, int],
    source: int | None = None,
    partitioning: Partitioning = CODE,
) -> int | None:
    """Where a partition forwards a status change; `copies` has the width that each partition's record says."""
    its, at = Router(partitioning, here), entry(source)
    width = copies.get(here)
    found = record(width) if width and its.needs_record(one.workspace, at) else None
    return its.target(at, one, found)


def walk(start: int, one: StatusChange, copies: dict[int, int], partitioning: Partitioning) -> list[int]:
    """The partitions that a status change comes to, the last of which takes it."""
    places, source = [start], None
    while (target := route(places[-1], one, copies, source, partitioning)) is not None:
        source = places[-1]
        places.append(target)
        assert len(places) < 5, "it goes in circles"
    return places


@given(
    partitions=st.integers(1, 9),
    start=st.integers(0, 8),
    uuid=st.from_regex(r"\A[a-z0-9]{1,8}\Z"),
    width=st.integers(1, 9),
    copies=st.dictionaries(st.integers(0, 8), st.integers(1, 9)),
)
def test_at_most_two_steps(
    partitions: int, start: int, uuid: str, width: int, copies: dict[int, int]
) -> None:
    """Whatever copies of the record say, an entry is forwarded at most twice; with true ones it ends where it belongs."""
    its, one = Partitioning(partitions), change(uuid=uuid)
    begin = start % partitions
    home = its.home("acme")
    assert len(walk(begin, one, copies | {home: width}, its)) <= 3
    right = its.of("acme", uuid, width)
    true = dict.fromkeys(its.all_of("acme", width), width)
    places = walk(begin, one, true, its)
    assert right == places[-1]
    assert places == [begin, *(one for one in (home, right) if one != begin)][: len(places)]


def test_a_strangers_record_is_not_read() -> None:
    """A partition that cannot be one of a workspace's, or has found no record of it lately, asks for none."""
    seconds = 0.0
    its = Router(CODE, (AT_HOME + 1) % 4, lambda: seconds)
    assert its.needs_record("acme", entry())
    its.note_stranger("acme")
    assert not its.needs_record("acme", entry())
    seconds = router.STRANGER_SECONDS
    assert its.needs_record("acme", entry())
    many = Partitioning(1024)
    far = (many.home("acme") + 64) % 1024
    assert not Router(many, far).needs_record("acme", entry())


def test_home_always_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace that is unknown at its home is not remembered as that: it may be made at any time."""
    its = Router(CODE, AT_HOME)
    its.note_stranger("acme")
    assert its.needs_record("acme", entry())


def test_strangers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workspaces have no record here, memory does not grow."""
    monkeypatch.setattr(router, "MOST_STRANGERS", 3)
    its = Router(CODE, (AT_HOME + 1) % 4)
    for number in range(200):
        its.note_stranger(f"w{number}")
    assert 3 == len(its._strangers)


@pytest.mark.parametrize("raw", [b"", b"x 1-0", b" ", b"-1 1-0", b"9" * 9999, b"\xb2 1"])
def test_forged_sources(raw: bytes) -> None:
    """A field `from` that no partition has written says nothing."""
    assert None is came_from(QueueEntry("1-0", [b"event", b"{}", b"from", raw]))


def test_home_takes_all_of_a_narrow_workspace() -> None:
    """Home need not look where entries of a workspace belong, unless its width is above 1 or has grown; anyone else must."""
    narrow, wide = record(1), record(4)
    grown = replace(wide, earlier_widths=(EarlierWidth(1, 5),))
    assert [True, False, False] == [Router(CODE, AT_HOME).takes_all(one) for one in (narrow, wide, grown)]
    assert not Router(CODE, (AT_HOME + 1) % 4).takes_all(narrow)
    assert not Router(Partitioning(4, has_previous=True), 4).takes_all(narrow)
