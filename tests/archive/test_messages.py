"""What every archive does with messages, on SQLite and on PostgreSQL."""

import asyncio

import msgspec
import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import BY_LETTER, Status, encode_json
from dispatcher.store.archive.archived_message import ArchivedMessage, archived, is_over, together, whole
from dispatcher.store.archive.messages import Counted, Wanted
from dispatcher.store.message_record import RANKS, may_follow
from dispatcher.store.stored_message import stored
from tests.archive.conftest import Run
from tests.lua_source import text_of
from tests.messages import Store, change

DAY_MS = 86_400_000
AT = 1_800_000_000_000


def made(
    uuid: str = "m1",
    *,
    workspace: str = "acme",
    sent_ms: int = AT,
    kept_ms: int = AT,
    history: str = "",
    keys: str = '["phone:+1"]',
    **of: str,
) -> ArchivedMessage:
    """A message, delivered unless its history says something else."""
    history = history or f"s{sent_ms} d{sent_ms + 7}"
    status, changed_ms = history.split()[-1][0], int(history.split()[-1][1:])
    details = (
        dict.fromkeys(ArchivedMessage.__struct_fields__[10:], "") | {"channel": "SMS", "dest": "+1"} | of
    )
    return ArchivedMessage(
        workspace, uuid, kept_ms, sent_ms, status, changed_ms, history, details.pop("campaign", ""), keys,
        '[["SMS",""]]', **details,
    )  # fmt: skip


def uuids(found: list[ArchivedMessage]) -> list[str]:
    """Theirs."""
    return [one.uuid for one in found]


def test_as_it_was(redis_url: str, run: Run) -> None:
    """A message comes back as the message store had it: every detail, all statuses, all ids that its customer knew it by."""
    store = Store(redis_url)
    about = {
        "segments": 2, "units": 3, "attempts": 4, "cost": "0.0450", "currency": "GHS", "network": "MTN", "total_parts": 2,
        "customer_message_id": "theirs", "reference": {"key": "a b"}, "provider": {"name": "é", "at": [1, None]},
        "campaign_id": "spring",
    }  # fmt: skip
    store.record(
        change("SUBMITTED", at_ms=AT, **about),
        change("BUFFERED", at_ms=AT + 1, channel="RCS", customer_message_id="other"),
        change("SENT", at_ms=AT + 1),
        change("FAILED", at_ms=AT + 2, error={"code": "E1", "message": "no \u2028 luck"}),
    )
    record = store.plain.get(store.keys.status("acme", "m1"))
    assert isinstance(record, bytes)
    run(run.archive.messages.put([archived("acme", "m1", record, AT, "qlara")]))
    [found] = run(run.archive.messages.get("acme", ["m1", "m2"]))
    assert stored("m1", record) == found.message()
    assert [
        "phone:+233200000001",
        "time:SMS",
        "customer:SMS:theirs",
        "time:RCS",
        "customer:RCS:other",
    ] == list(found.look_ups())
    store.close()


def test_told_again(run: Run) -> None:
    """The same again, also of the next day, changes nothing; a later status is added to what is there."""
    messages = run.archive.messages
    first = made(history=f"s{AT} d{AT + 7}")
    for _ in range(2):
        run(messages.put([first, made("m2"), made("m1", workspace="bluefin")]))
    read = made(history=f"s{AT} d{AT + 7} r{AT + 99}", kept_ms=AT + DAY_MS, keys='["phone:+1","time:RCS"]')
    run(messages.put([read]))
    assert [read] == run(messages.get("acme", ["m1"]))
    assert ["m1", "m2"] == uuids(run(messages.listed(Wanted("acme", "phone:+1"), None, 10)))
    assert ["m1"] == uuids(run(messages.listed(Wanted("acme", "time:RCS"), None, 10)))
    assert {"phone:+1": ["m1", "m2"]} == run(messages.latest("acme", ["phone:+1", "phone:+2"]))


def test_a_status_that_came_much_later(run: Run) -> None:
    """Of a message whose record began anew there is one message, with all that both records had."""
    messages = run.archive.messages
    run(messages.put([made(history=f"m{AT} s{AT + 5}", src="ACME", campaign="spring")]))
    late = made(
        history=f"d{AT + 9 * DAY_MS}", sent_ms=AT + 9 * DAY_MS, kept_ms=AT + 9 * DAY_MS, network="MTN"
    )
    run(messages.put([late]))
    [found] = whole(run(messages.get("acme", ["m1"]))).values()
    assert (f"m{AT} s{AT + 5} d{AT + 9 * DAY_MS}", AT, "d") == (found.history, found.sent_ms, found.status)
    assert ("ACME", "MTN", "spring") == (found.src, found.network, found.campaign)


def test_together() -> None:
    """Of rows of a message the final status stays, whichever came first, with its error."""
    over = made(history=f"s{AT} f{AT + 7}", error_code="E1", network="MTN")
    sent = made(history=f"m{AT - 1} s{AT + 900}", cost="1")
    found = together([sent, over])
    assert found == together([over, sent])
    assert ("f", f"s{AT} f{AT + 7}", "E1", "1") == (found.status, found.history, found.error_code, found.cost)


def test_pages(run: Run) -> None:
    """Lists go by time and then by uuid, forwards and backwards, page by page, within the times asked for."""
    messages = run.archive.messages
    some = [made(f"m{n}", sent_ms=AT + n // 2, kept_ms=AT + n % 3 * DAY_MS) for n in (3, 0, 5, 1, 4, 2)]
    run(messages.put([*some, made("n", keys='["phone:+2"]'), made("m9", workspace="bluefin")]))
    wanted = Wanted("acme", "phone:+1")
    for latest_first in (False, True):
        wanted = msgspec_replace(wanted, latest_first=latest_first)
        found: list[ArchivedMessage] = []
        after = None
        while page := run(messages.listed(wanted, after, 2)):
            assert 2 == len(page)
            found += page
            after = page[-1].place
        expected = [f"m{n}" for n in range(6)]
        assert (expected[::-1] if latest_first else expected) == uuids(found)
    assert ["m2", "m3"] == uuids(run(messages.listed(Wanted("acme", "phone:+1", AT + 1, AT + 1), None, 10)))
    assert ["m4", "m5"] == uuids(run(messages.listed(Wanted("acme", "phone:+1"), None, 2, skip=4)))


def msgspec_replace(wanted: Wanted, *, latest_first: bool) -> Wanted:
    """The same in this order."""
    return Wanted(wanted.workspace, wanted.key, wanted.from_ms, wanted.to_ms, latest_first)


def test_campaign(run: Run) -> None:
    """A campaign's messages by status, and when the first was sent."""
    messages = run.archive.messages
    keys = '["campaign:spring"]'
    run(messages.put([made(f"m{n}", sent_ms=AT + n, keys=keys, kept_ms=AT + n * DAY_MS) for n in range(3)]))
    run(messages.put([made("m9", history=f"f{AT}", keys=keys), made("m8", keys='["campaign:summer"]')]))
    found = run(messages.campaign("acme", "spring"))
    assert found
    assert ({"d": 3, "f": 1}, AT) == (dict(found.by_status), found.started_ms)
    assert run(messages.campaign("bluefin", "spring")) is None
    assert run(messages.campaign("acme", "autumn")) is None


def test_erased(run: Run) -> None:
    """What is erased is in no list, and is not put again; a callback whose eventId is the message's uuid is not meant."""
    messages = run.archive.messages
    run(messages.put([made(), made("m2"), made(workspace="bluefin")]))
    assert 1 == run(messages.erase("acme", ["m1", "m7"], 1))
    run(messages.put([made(), made("m7"), made("m2")]))
    assert ["m2"] == uuids(run(messages.listed(Wanted("acme", "phone:+1"), None, 10)))
    assert ["m2"] == uuids(run(messages.get("acme", ["m1", "m2", "m7"])))
    assert (1, 1) == (run(messages.count("acme")), run(messages.count("bluefin")))
    assert ["m2"] == run(messages.some("acme", 10))
    assert set() == run(run.archive.erased([("acme", "m1")]))


def test_days_are_dropped(run: Run) -> None:
    """Messages are forgotten by the day on which they were over, with what they are looked up by."""
    messages = run.archive.messages
    day = AT // DAY_MS
    run(messages.put([made(f"m{n}", kept_ms=(day + n) * DAY_MS + 5) for n in range(3)]))
    assert run(run.archive.drop_days(day + 2)) in (1, 2)  # PostgreSQL counts days
    run(run.archive.drop_days(day + 2))
    assert ["m2"] == uuids(run(messages.listed(Wanted("acme", "phone:+1"), None, 10)))
    assert ["m2"] == uuids(run(messages.get("acme", ["m0", "m1", "m2"])))


@pytest.mark.parametrize("text", ["a\0b", "\0", "\ue000", "\ue0000\0001\ue0001", "\\u0000"])
def test_any_text(run: Run, text: str) -> None:
    """What no text of PostgreSQL can have comes back as it was, in whatever text it is, and a message is found by it."""
    messages = run.archive.messages
    keys = [f"customer:SMS:{text}", "phone:+1", f"campaign:{text}"]
    of = {
        "keys": encode_json(keys).decode(), "names": encode_json([["SMS", text]]).decode(), "campaign": text,
        "provider": encode_json({"name": text}).decode(), **dict.fromkeys(("network", "error_message", "customer_message_id"), text),
    }  # fmt: skip
    one = msgspec.structs.replace(made(), **of)
    for _ in range(2):
        run(messages.put([one, made("m2")]))
        assert [one] == run(messages.get("acme", ["m1"]))
        assert [one] == run(messages.listed(Wanted("acme", keys[0]), None, 9))
        assert {keys[0]: ["m1"]} == run(messages.latest("acme", keys[:1]))
        assert run(messages.campaign("acme", text)) == (Counted({"d": 1}, AT))
    assert one.message() == run(messages.get("acme", ["m1"]))[0].message()
    read = msgspec.structs.replace(one, status="r", history=f"{one.history} r{AT + 99}", changed_ms=AT + 99)
    run(messages.put([read]))
    assert [read] == run(messages.listed(Wanted("acme", keys[0]), None, 9))
    assert 1 == run(messages.erase("acme", ["m1"], 1))
    assert [] == run(messages.listed(Wanted("acme", keys[0]), None, 9))


def test_what_cannot_be_kept(run: Run) -> None:
    """A text that no database can have is refused, with nothing kept of that batch."""
    with pytest.raises(InvalidInput):
        run(run.archive.messages.put([made(), made("m2", network="a\ud800b")]))
    assert [] == run(run.archive.messages.get("acme", ["m1", "m2"]))


def test_one_that_is_refused_takes_no_others_with_it(run: Run) -> None:
    """What was made for a batch that is refused, a workspace's number and its days, is made again for the next one."""
    messages = run.archive.messages
    later = {"workspace": "new", "kept_ms": AT + 3 * DAY_MS}
    with pytest.raises(InvalidInput):
        run(messages.put([made("m1", **later), made("m2", network="a\ud800b", **later)]))
    run(messages.put([made("m1", **later)]))  # half of it, as the archiver tries
    assert ["m1"] == [one.uuid for one in run(messages.get("new", ["m1"]))]


def test_what_cannot_be_there(run: Run) -> None:
    """Who asks for a text that PostgreSQL cannot have, and that nothing has, finds nothing."""
    messages = run.archive.messages
    assert (
        [] == run(messages.get("acme", ["a\0b"])) == run(messages.listed(Wanted("acme", "phone:\0"), None, 9))
    )
    assert {} == run(messages.latest("acme", ["customer:SMS:\0"]))
    assert run(messages.campaign("acme", "\0")) is None


def test_at_the_same_time(run: Run) -> None:
    """Two that put the same messages, as after an owner that stalled, leave each message once."""

    async def put() -> None:
        some = [made(f"m{n}") for n in range(50)]
        await asyncio.gather(run.archive.messages.put(some), run.archive.messages.put(some[::-1]))

    run(put())
    assert 50 == len(run(run.archive.messages.listed(Wanted("acme", "phone:+1"), None, 200)))


def test_the_ranks_are_those_of_lua() -> None:
    """Which status may follow which is decided alike in both places."""
    lua = text_of("lib/message_steps").partition("local RANK = {")[2].partition("}")[0]
    words = [one.strip() for one in lua.replace("\n", " ").split(",") if one.strip()]
    assert RANKS == {letter.strip(): int(rank) for letter, rank in (one.split("=") for one in words)}
    assert may_follow(Status.DELIVERED, Status.READ)
    assert not may_follow(Status.FAILED, Status.DELIVERED)
    assert may_follow(Status.SENT, Status.BUFFERED)
    assert not may_follow(Status.SENT, Status.SENT)


@pytest.mark.parametrize("letter", sorted(BY_LETTER))
def test_is_over(letter: str) -> None:
    """A message is over when no status can follow; one that was delivered, unless it may be read where it was sent."""
    status = BY_LETTER[letter]
    row = made(history=f"{letter}{AT}")
    expected = status in (
        Status.DELIVERED, Status.FAILED, Status.UNDELIVERABLE, Status.EXPIRED, Status.REJECTED, Status.READ,
    )  # fmt: skip
    assert expected == is_over(row)
    on_rcs = is_over(msgspec.structs.replace(row, names='[["RCS", ""], ["SMS", ""]]'))
    assert (expected and status is not Status.DELIVERED) == on_rcs
