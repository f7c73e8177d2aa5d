"""The message store on a real server: the latest status by rank, what is told, and every look-up."""

import asyncio
import re
import struct
from collections.abc import Iterator
from decimal import Decimal

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.errors import InvalidInput
from dispatcher.model import LETTERS, Status
from dispatcher.store.message_reader import Bounds
from dispatcher.store.message_record import Details, Head
from dispatcher.store.script_text import source
from tests.messages import RETENTION_MS, Store, change

AT = 1_800_000_000_000
RANK = {
    "UNKNOWN": -1, "SCHEDULED": 0, "QUEUED": 10, "PROCESSING": 20, "SUBMITTED": 30, "SENT": 40, "BUFFERED": 40,
    "DELIVERED": 100, "FAILED": 100, "UNDELIVERABLE": 100, "EXPIRED": 100, "REJECTED": 100, "READ": 110,
}  # fmt: skip


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    """A store; afterwards every key of it has a time to live."""
    store = Store(redis_url)
    yield store
    assert [] == [key for key in store.plain.keys("*:status*") if store.plain.pttl(key) < 0]
    store.close()


def expected_history(statuses: list[str], channel: str) -> list[str]:
    """What PROVIDERS.md 6.1 says: only to a higher rank, SENT and BUFFERED freely, the first final stays, then READ."""
    history: list[str] = []
    for status in statuses:
        if status == "READ" and channel == "SMS":
            continue
        before = history[-1] if history else None
        if before is None:
            follows = True
        elif RANK[before] >= 100:
            follows = (before, status) == ("DELIVERED", "READ")
        else:
            follows = RANK[status] > RANK[before] or {before, status} == {"SENT", "BUFFERED"}
        if follows:
            history.append(status)
    return history


@given(
    statuses=st.lists(st.sampled_from([status.value for status in Status]), min_size=1, max_size=12),
    channel=st.sampled_from(["SMS", "RCS", "WHATSAPP"]),
    together=st.booleans(),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_history_follows_the_ranks(store: Store, statuses: list[str], channel: str, together: bool) -> None:
    """Whatever comes in whatever order, in one batch or many: the history is what the ranks allow."""
    store.plain.flushall()
    changes = [
        change(status, at_ms=AT + number, channel=channel, event_id=f"e{number}")
        for number, status in enumerate(statuses)
    ]
    for batch in [changes] if together else [[one] for one in changes]:
        store.record(*batch)
    expected = expected_history(statuses, channel)
    found = store.run(store.messages.get("acme", "m1"))
    assert expected == ([status.value for status, _ in found.history] if found else [])
    if found:
        assert expected[-1] == found.status.value
        assert all(changes[at - AT].status is status for status, at in found.history)


def test_fields_are_kept_and_completed(store: Store) -> None:
    """Each change adds what it tells; what it does not tell stays."""
    store.record(
        change("SUBMITTED", at_ms=AT, segments=2, network="MTN", accepted_at="2027-01-15T07:59:00Z"),
        change(
            "DELIVERED", at_ms=AT + 5000, cost="0.0350", currency="GHS", provider={"name": "P", "code": "0"}
        ),
    )
    found = store.get()
    assert (2, "MTN", Decimal("0.0350"), "GHS") == (found.segments, found.network, found.cost, found.currency)
    assert ({"name": "P", "code": "0"}, {}) == (found.provider, found.reference)
    assert 1_799_999_940_000 == found.sent_ms
    assert AT + 5000 == found.first(Status.DELIVERED)


def test_a_time_before_the_first_platform(store: Store) -> None:
    """A message that was taken before 2000, by what its status change says, was sent when that happened."""
    store.record(change("DELIVERED", at_ms=AT + 5000, accepted_at="0001-01-01T00:00:00Z"))
    assert AT + 5000 == store.get().sent_ms


def test_late_and_repeated_changes_change_nothing(store: Store) -> None:
    """After a final status not even a field of it changes."""
    store.record(change("DELIVERED", at_ms=AT, segments=1))
    before = store.get()
    found = store.record(
        change("SENT", at_ms=AT - 1, segments=9),
        change("DELIVERED", at_ms=AT + 1, segments=9),
        change("FAILED"),
    )
    assert ({"recorded": 1, "late": 3}, before) == (found, store.get())


def test_error_of_a_failure(store: Store) -> None:
    """The error's code and message are kept."""
    store.record(change("FAILED", error={"code": "E002", "message": "Network down"}))
    assert ("E002", "Network down") == (store.get().error_code, store.get().error_message)


def test_history_is_bounded(store: Store) -> None:
    """SENT and BUFFERED taking turns for ever do not fill memory, and do not keep the end from being seen."""
    for first in range(0, 3000, 500):
        store.record(
            *(
                change(("SENT", "BUFFERED")[n % 2], at_ms=AT + n, event_id=f"e{n}")
                for n in range(first, first + 500)
            )
        )
    store.record(change("DELIVERED", at_ms=AT + 5000))
    assert 16_300 < store.plain.strlen(store.keys.status("acme", "m1")) < 16_500
    assert Status.DELIVERED is store.get().status


def test_batch_that_comes_again_changes_nothing(store: Store) -> None:
    """A worker that dies between recording and accepting has its batch recorded twice."""
    batch = [
        change(status, at_ms=AT + n) for n, status in enumerate(("SENT", "BUFFERED", "SENT", "BUFFERED"))
    ]
    store.record(*batch)
    before = store.get()
    store.record(*batch)
    store.record(batch[0])
    assert before == store.get()
    assert ["SENT", "BUFFERED", "SENT", "BUFFERED"] == store.statuses()


def test_error_is_of_its_status(store: Store) -> None:
    """An error told with one status is not that of the next one, nor is its text that of another code."""
    store.record(change("SENT", error={"code": "E005", "message": "Phone off"}))
    store.record(change("BUFFERED", error={"code": "E006"}))
    assert ("E006", None) == (store.get().error_code, store.get().error_message)
    store.record(change("DELIVERED"))
    assert None is store.get().error_code


def test_long_provider_does_not_stop_the_status(store: Store) -> None:
    """Whatever was told before, the next status is kept."""
    for n, status in enumerate(("QUEUED", "PROCESSING", "SUBMITTED", "SENT", "DELIVERED", "READ")):
        store.record(change(status, at_ms=AT + n, channel="RCS", provider={"text": f"{n}" * 15_000}))
    assert (Status.READ, 6) == (store.get().status, len(store.get().history))
    assert "5" * 15_000 == store.get().provider["text"]


def test_customer_message_id_that_is_used_again(store: Store) -> None:
    """The later message has it, also after a change of the earlier one."""
    store.record(
        change("SENT", "m1", customer_message_id="order-1"),
        change("SENT", "m2", customer_message_id="order-1"),
        change("DELIVERED", "m1", customer_message_id="order-1", cost="1"),
        dialect="qlara",
    )
    found = store.run(store.messages.of_customer("acme", "SMS", ["order-1"]))
    assert "m2" == found["order-1"].uuid


def asked(store: Store, *ids: str, channel: str = "SMS") -> dict[str, str]:
    """The messages that an id leads to."""
    found = store.run(store.messages.of_customer("acme", channel, ids))
    return {id_: one.uuid for id_, one in found.items()}


@pytest.mark.parametrize("id_", ["ACME", "2332", "SMS", "x", "S", "7", "order 7 of 70"])
def test_customer_message_id_that_comes_later(store: Store, id_: str) -> None:
    """It is found although its text stands elsewhere in what is kept; so is the message's own id, as before."""
    store.record(
        change("SUBMITTED", at_ms=AT, provider={"id": "order 7 of 70", "x": "2332"}),
        change("SENT", at_ms=AT + 1, customer_message_id=id_),
        dialect="qlara",
    )
    assert {id_: "m1", "m1": "m1"} == asked(store, id_, "m1")


def test_customer_message_id_that_is_corrected(store: Store) -> None:
    """The last one told is found, and so are those before it, each a part of another or not."""
    ids = ["order-10", "order-1", "order", "1"]
    for number, (status, id_) in enumerate(
        zip(("QUEUED", "SUBMITTED", "SENT", "DELIVERED"), ids, strict=True)
    ):
        store.record(change(status, at_ms=AT + number, customer_message_id=id_), dialect="qlara")
        assert dict.fromkeys(ids[: number + 1], "m1") == asked(store, *ids)


def test_customer_message_id_of_a_later_message(store: Store) -> None:
    """The message that told it first last has it, also after the one before tells it again, and though that has others."""
    store.record(
        change("SUBMITTED", "m1", customer_message_id="order-1"),
        change("SUBMITTED", "m2", customer_message_id="order-12"),
        change("SENT", "m2", customer_message_id="order-1"),
        change("SENT", "m1", customer_message_id="order-2"),
        change("DELIVERED", "m1", customer_message_id="order-1", cost="1"),
        dialect="qlara",
    )
    assert {"order-1": "m2", "order-12": "m2", "order-2": "m1"} == asked(
        store, "order-1", "order-12", "order-2"
    )


def test_customer_message_id_on_another_channel(store: Store) -> None:
    """A message that goes on by another channel is found on each of its channels, told again there or not."""
    store.record(
        change("SUBMITTED", "m1", channel="RCS", customer_message_id="order-1"),
        change("SENT", "m1", channel="SMS"),
        change("SUBMITTED", "m2", channel="RCS", customer_message_id="order-2"),
        change("SENT", "m2", channel="SMS", customer_message_id="order-2"),
        dialect="qlara",
    )
    for channel, found in (("RCS", ["m1", "m2"]), ("SMS", ["m1", "m2"]), ("WHATSAPP", [])):
        assert found == list(asked(store, "order-1", "order-2", channel=channel).values())
    assert b"m2" == store.plain.get(store.keys.status_customer("acme", "SMS", "order-2"))


def test_channel_with_a_colon(store: Store) -> None:
    """A channel's name and an id do not run together into those of another message."""
    store.record(
        change(uuid="m1", customer_message_id="x:y"),
        change(uuid="m2", channel="SMS:x", customer_message_id="y"),
        dialect="qlara",
    )
    assert {"x:y": "m1"} == asked(store, "x:y")


def test_id_that_an_earlier_version_did_not_list(store: Store) -> None:
    """Its message's next change lists it, unless another message has it by now."""
    for uuid in ("m1", "m2"):
        store.record(change("SUBMITTED", uuid), dialect="qlara")
        store.record(change("SENT", uuid, customer_message_id="ACME"), dialect="qlara")
        store.plain.delete(store.keys.status_customer("acme", "SMS", "ACME"))
    for uuid in ("m1", "m2"):
        store.record(change("DELIVERED", uuid, customer_message_id="ACME", cost="1"), dialect="qlara")
        assert {"ACME": "m1"} == asked(store, "ACME")


def test_record_of_the_version_before(store: Store) -> None:
    """A record, byte for byte as it was written, is read, found and gone on with."""
    told = bytes.fromhex(
        "9fa441434d45ad2b323333323030303030303031a3534d53a0a0a0a0a0a76f726465722d31a0a0a0a0a0a0"
    )
    head = b"m%013d%06d%04d" % (AT, 24 + 10, 0)
    step = b"m" + AT.to_bytes(8, "big")
    store.plain.set(
        store.keys.status("acme", "m1"), head + step + len(told).to_bytes(2, "big") + told, px=99_999
    )
    store.plain.set(store.keys.status_customer("acme", "SMS", "order-1"), "m1", px=99_999)
    assert {"order-1": "m1"} == asked(store, "order-1")
    store.record(change("SENT", at_ms=AT + 1, customer_message_id="order"), dialect="qlara")
    assert (["SUBMITTED", "SENT"], {"order-1": "m1", "order": "m1"}) == (
        store.statuses(), asked(store, "order-1", "order"),
    )  # fmt: skip


def test_step_that_stands_in_a_text(store: Store) -> None:
    """A status is not taken for a repeated one because a text holds the bytes that it is kept as."""
    at = 0x178_4141_4141
    text = "s\x00\x00\x01xAAAA"
    store.record(change("SENT", at_ms=1), change("BUFFERED", at_ms=2, error={"code": "E1", "message": text}))
    assert b"s" + at.to_bytes(8, "big") in store.plain.get(store.keys.status("acme", "m1"))
    store.record(change("SENT", at_ms=at))
    assert [("SENT", 1), ("BUFFERED", 2), ("SENT", at)] == [
        (s.value, when) for s, when in store.get().history
    ]


def test_places_of_what_is_told() -> None:
    """The script looks for channel and customerMessageId where they stand."""
    found = re.search(r"CHANNEL, CUSTOMER_ID = (\d+), (\d+)", source("accept"))
    assert found
    names = [field.name for field in msgspec.structs.fields(Details)]
    assert ["channel", "customer_message_id"] == [names[int(number) - 1] for number in found.groups()]


def test_nul_in_a_campaign(store: Store) -> None:
    """A zero byte in what is told is a byte like any other."""
    store.record(change("QUEUED", campaign_id="a\0b"), change("SENT", campaign_id="a\0b"))
    found = store.run(store.messages.campaign("acme", "a\0b"))
    assert (["QUEUED", "SENT"], "a\0b") == (store.statuses(), store.get().campaign_id)
    assert found
    assert {Status.SENT: 1} == found.counts


def test_unreadable_record_is_left_out(store: Store) -> None:
    """What cannot be read is like what is not there, and does not hide the others."""
    store.record(change("SENT", "m1"), change("SENT", "m2"))
    key = store.keys.status("acme", "m1")
    whole = store.plain.get(key)
    for broken in (
        whole[:24] + b"\xff" * 30,
        whole[:-5],
        whole[:36] + b"\xc1" * (len(whole) - 36),
        whole[:24],
    ):
        store.plain.set(key, broken, ex=60)
        assert ["m2"] == [one.uuid for one in store.run(store.messages.get_many("acme", ["m1", "m2"]))]


def test_broken_record_is_replaced(store: Store) -> None:
    """What cannot be read does not hold up what comes."""
    for nonsense in (b"\xc1nonsense", b"", b"s", b"z" + b"0" * 40, b"s" + b"x" * 40):
        store.plain.set(store.keys.status("acme", "m1"), nonsense)
        store.record(change("SENT"))
        assert ["SENT"] == store.statuses()


def test_what_was_told_before_is_kept_once(store: Store) -> None:
    """A change that tells nothing new takes eleven bytes; one that takes something back is heard."""
    lengths = []
    for number, (status, attempts) in enumerate([("QUEUED", 1), ("SENT", 1), ("BUFFERED", 2), ("SENT", 1)]):
        store.record(change(status, at_ms=AT + number, attempts=attempts, event_id=f"e{number}"))
        lengths.append(store.plain.strlen(store.keys.status("acme", "m1")))
    assert (11, True) == (lengths[1] - lengths[0], lengths[2] - lengths[1] > 11)
    assert 1 == store.get().attempts


def test_every_status_has_a_letter_and_a_rank() -> None:
    """Python's letters are those of the script."""
    ranks = re.search(r"RANK = \{(.*?)\}", source("accept"), re.S)
    assert ranks
    assert {letter: RANK[status.value] for status, letter in LETTERS.items()} == {
        letter: int(rank) for letter, rank in re.findall(r"(\w) = (-?\d+)", ranks[1])
    }
    assert set(Status) == set(LETTERS)


def test_far_times_and_long_tellings(store: Store) -> None:
    """A time beyond all sense, and a reference that is too long to keep, do not break what is kept."""
    store.record(
        change(
            "SENT", accepted_at="9999-12-31T23:59:59Z", reference={"key": "k" * 20_000}, campaign_id="ä" * 256
        ),
        change("DELIVERED", at_ms=-5, accepted_at="0001-01-01T00:00:00Z"),
    )
    found = store.get()
    assert (9_999_999_999_999, {}, "ä" * 256) == (found.sent_ms, found.reference, found.campaign_id)
    assert [(Status.SENT, AT), (Status.DELIVERED, -5)] == found.history


def everything(_: Head) -> bool:
    return True


def test_by_phone_latest_first(store: Store) -> None:
    """The latest messages to a number, before a time, so many."""
    for number in range(5):
        store.record(change(uuid=f"m{number}", at_ms=AT + number * 1000), dialect="namirial")
    store.record(change(uuid="other", dest="+39000"), dialect="namirial")

    def ask(before: int, count: int) -> list[str]:
        found = store.run(store.messages.to_phone("acme", "+233200000001", before, count, everything))
        return [one.uuid for one in found]

    assert ["m4", "m3", "m2", "m1", "m0"] == ask(AT + 10_000, 50)
    assert ["m4", "m3"] == ask(AT + 10_000, 2)
    assert ["m1", "m0"] == ask(AT + 2000, 50)
    assert [] == ask(AT, 50)


def kept(told: Details, at_ms: int = AT, letter: bytes = b"s") -> bytes:
    """A record as the script writes one, of one status, with whatever is told."""
    packed = msgspec.msgpack.encode(told)
    step = struct.pack(">cqH", letter, at_ms, len(packed))
    return letter + b"%013d%06d%04d" % (AT, 24 + len(step), 0) + step + packed


TOLD = Details("ACME", "+233200000001", "SMS")
DEEP = '{"x":' * 960 + "{}" + "}" * 960
UNREADABLE = {
    "no record": b"by hand",
    "half of one": kept(TOLD)[:-3],
    "no status": kept(TOLD)[:24],
    "another letter": kept(TOLD, letter=b"?"),
    "another status in its head": b"d" + kept(TOLD)[1:],
    "no time": kept(TOLD, at_ms=2**62),
    "no msgpack": kept(TOLD)[:-40] + b"\xc1" * 40,
    "no text": kept(replace(TOLD, src=7)),
    "no count": kept(replace(TOLD, segments="x")),
    "endless count": kept(replace(TOLD, units="9" * 30)),
    "no cost": kept(replace(TOLD, cost="NaN")),
    "endless cost": kept(replace(TOLD, cost="1E+999999999")),
}
UNREADABLE_IN_PART = {
    "deep": replace(TOLD, provider=DEEP),
    "no JSON": replace(TOLD, provider="{"),
    "no object": replace(TOLD, provider="[1]"),
    "endless number": replace(TOLD, provider='{"x":1e99999999999999999999}'),
}


def test_the_records_of_these_tests_are_right(store: Store) -> None:
    """What `kept` makes is read where nothing is wrong with it."""
    store.plain.set(store.keys.status("acme", "m1"), kept(TOLD), px=60_000)
    assert (Status.SENT, "ACME") == (store.get().status, store.get().src)


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_record_that_cannot_be_read_hides_no_other(store: Store, what: str) -> None:
    """It is left out of every list, and looked for alone it is not found."""
    told = {"campaign_id": "c", "reference": {"key": "k"}}
    for number in range(3):
        for dialect in ("namirial", "qlara", "zeckta"):
            store.record(change(uuid=f"m{number}", workspace=dialect, **told), dialect=dialect)
    for dialect in ("namirial", "qlara", "zeckta"):
        store.plain.set(store.keys.status(dialect, "m1"), UNREADABLE[what], px=60_000)
    messages, number = store.messages, "+233200000001"
    asked = [
        messages.get_many("qlara", ["m0", "m1", "m2"]),
        messages.recipients("zeckta", "c", 0, 9),
        messages.to_phone("namirial", number, AT + 1, 9, everything),
        messages.with_reference("namirial", "k", AT + 1, 9, everything),
        messages.sent_between("qlara", "SMS", AT, AT, now_ms=AT, skip=0, count=9),
    ]
    assert [["m0", "m2"]] * 5 == [sorted(one.uuid for one in store.run(some)) for some in asked]
    assert None is store.run(messages.get("qlara", "m1"))


@pytest.mark.parametrize("what", UNREADABLE_IN_PART)
def test_a_status_is_known_though_its_provider_cannot_be_read(store: Store, what: str) -> None:
    """What the backend told freely is left out where it cannot be read; the message stays."""
    store.plain.set(store.keys.status("acme", "m1"), kept(UNREADABLE_IN_PART[what]), px=60_000)
    assert (Status.SENT, {}) == (store.get().status, store.get().provider)


def test_what_is_no_list_hides_nothing_else(store: Store) -> None:
    """Something else under one key of a look-up costs what was under it, and no more."""
    for slot in range(3):
        store.record(change(uuid=f"m{slot}", at_ms=AT + slot * 600_000, campaign_id="c"), dialect="qlara")
    store.plain.set(store.keys.status_time("acme", "SMS", AT // 600_000 + 1), "by hand", px=60_000)
    asked = store.messages.sent_between("acme", "SMS", AT, AT * 2, now_ms=AT + 3_600_000, skip=0, count=9)
    assert ["m0", "m2"] == [one.uuid for one in store.run(asked)]
    store.plain.set(store.keys.status_phone("acme", "+1"), "by hand", px=60_000)
    assert [] == store.run(store.messages.to_phone("acme", "+1", AT, 9, everything))
    store.plain.rpush(store.keys.status_time("acme", "SMS", AT // 600_000), b"\xff")
    asked = store.messages.sent_between("acme", "SMS", AT, AT * 2, now_ms=AT + 3_600_000, skip=0, count=9)
    assert ["m0", "m2"] == [one.uuid for one in store.run(asked)]


def test_a_campaign_with_what_is_no_count(store: Store) -> None:
    """Its totals are those that can be read."""
    for number in range(2):
        store.record(change("QUEUED", f"m{number}", campaign_id="c"))
    wrong = {"?": 1, "d": "x", "s": -3, "f": "9" * 40}
    store.plain.hset(store.keys.status_campaign("acme", "c"), mapping=wrong)
    found = store.run(store.messages.campaign("acme", "c"))
    assert found
    assert ({Status.QUEUED: 2}, AT) == (found.counts, found.started_ms)


def test_by_phone_looks_on_behind_what_is_left_out(store: Store) -> None:
    """What is forgotten or not to be kept does not count."""
    for number in range(6):
        store.record(change(uuid=f"m{number}", at_ms=AT + number), dialect="namirial")
    store.plain.delete(store.keys.status("acme", "m5"))
    found = store.run(
        store.messages.to_phone("acme", "+233200000001", AT + 99, 2, lambda one: one.uuid not in ("m4", "m3"))
    )
    assert ["m2", "m1"] == [one.uuid for one in found]


def test_by_reference_told_later(store: Store) -> None:
    """A reference that only a later change tells is found too, whatever its length."""
    long = "order " + "x" * 500
    store.record(
        change("SUBMITTED"), change("SENT", reference={"service": "S", "key": long}), dialect="namirial"
    )
    found = store.run(store.messages.with_reference("acme", long, AT + 1, 50, everything))
    assert ["m1"] == [one.uuid for one in found]
    assert [] == store.run(store.messages.with_reference("acme", "order", AT + 1, 50, everything))


def test_by_customer_message_id(store: Store) -> None:
    """By the customer's id on the channel it was sent on; by the message's own id where it has none."""
    store.record(
        change(uuid="m1", customer_message_id="order-1"),
        change(uuid="m2"),
        change(uuid="m3", channel="RCS", customer_message_id="order-3"),
        dialect="qlara",
    )

    def ask(channel: str, *ids: str) -> dict[str, str]:
        found = store.run(store.messages.of_customer("acme", channel, ids))
        return {id_: one.uuid for id_, one in found.items()}

    assert {"order-1": "m1", "m2": "m2"} == ask("SMS", "order-1", "m1", "m2", "order-3", "none")
    assert {"order-3": "m3"} == ask("RCS", "order-1", "order-3")


def test_campaign_totals_move(store: Store) -> None:
    """A campaign counts its messages by their status now; a change that says no campaign is counted too."""
    for number in range(3):
        store.record(change("QUEUED", f"m{number}", campaign_id="spring"))
    store.record(change("SENT", "m0", campaign_id="spring"), change("SENT", "m1"), change("DELIVERED", "m1"))
    store.record(change("QUEUED", "m9"), change("SENT", "m9", campaign_id="spring"), change("QUEUED", "m0"))
    found = store.run(store.messages.campaign("acme", "spring"))
    assert found
    assert ({Status.QUEUED: 1, Status.SENT: 2, Status.DELIVERED: 1}, 4, AT) == (
        found.counts, found.recipients, found.started_ms,
    )  # fmt: skip
    listed = store.run(store.messages.recipients("acme", "spring", 1, 2))
    assert ["m1", "m2"] == [one.uuid for one in listed]


@pytest.mark.parametrize("skip", [0, 1, 7, 24, 30])
def test_sent_between(store: Store, skip: int) -> None:
    """Pages over slots, with both ends inclusive, are the same as one long list."""
    messages = store.bounded(Bounds(page=3))
    now = AT + 3_600_000
    times = [AT + number * 120_000 for number in range(30)]
    for number, at in enumerate(times):
        store.record(change(("SENT", "DELIVERED")[number % 2], f"m{number:02}", at_ms=at), dialect="qlara")

    def ask(first: int, last: int, skip: int, count: int, final: bool = False) -> list[str]:
        found = store.run(
            messages.sent_between(
                "acme", "SMS", first, last, now_ms=now, skip=skip, count=count,
                keep=(lambda one: one.status is Status.DELIVERED) if final else None,
            )
        )  # fmt: skip
        return [one.uuid for one in found]

    names = [f"m{number:02}" for number in range(30)]
    assert names[skip : skip + 10] == ask(AT, now, skip, 10)
    assert names[3:20][skip:][:10] == ask(times[3], times[19], skip, 10)
    assert names[1::2][skip:][:4] == ask(AT, now, skip, 4, final=True)
    assert [] == ask(times[5], times[4], skip, 10)


def test_sent_between_says_where_it_would_look_at_too_many(store: Store) -> None:
    """A question that would hold up Redis is refused."""
    for number in range(10):
        store.record(change(uuid=f"m{number}"), dialect="qlara")
    asked = store.bounded(Bounds(looked_at=5)).sent_between(
        "acme", "SMS", AT - 1, AT + 1, now_ms=AT, skip=0, count=5, keep=lambda _: False
    )
    with pytest.raises(InvalidInput, match="narrow it"):
        store.run(asked)


@pytest.mark.parametrize("searches", [1, 10])
def test_others_are_served_while_many_are_read(store: Store, searches: int) -> None:
    """Between two turns of the others no more than 50 messages are looked at, however many search how much."""
    store.record(*(change("QUEUED", f"m{number}") for number in range(1100)), dialect="namirial")
    looked_at, most = 0, 0

    def keep(_: Head) -> bool:
        nonlocal looked_at
        looked_at += 1
        return looked_at % 2 == 0

    async def ask() -> None:
        nonlocal most
        asked = (
            store.messages.to_phone("acme", "+233200000001", AT + 1, 1100, keep) for _ in range(searches)
        )
        search = asyncio.gather(*asked)
        while not search.done():
            before = looked_at
            await asyncio.sleep(0)
            most = max(most, looked_at - before)
        assert 550 * searches == sum(len(found) for found in await search)

    store.run(ask())
    assert (1100 * searches, 50) == (looked_at, most)


def test_what_is_not_wanted_is_not_read_whole(store: Store) -> None:
    """A message that its status rules out costs no more than a look at its first bytes."""
    broken = kept(TOLD)[:-3]
    for number in range(3):
        store.record(change(uuid=f"m{number}"), dialect="namirial")
        store.plain.set(store.keys.status("acme", f"m{number}"), broken, px=60_000)
    with structlog.testing.capture_logs() as lines:
        for keep in (lambda _: False, everything):
            store.run(store.messages.to_phone("acme", "+233200000001", AT + 1, 9, keep))
    assert ["m0", "m1", "m2"] == sorted(line["message"] for line in lines)


def test_a_search_says_what_it_reads(store: Store) -> None:
    """Messages, and stretches of ten minutes, are told before they are read."""
    told: list[int] = []

    async def look(count: int) -> None:
        told.append(count)

    for number in range(3):
        store.record(change(uuid=f"n{number}", reference={"key": "k"}), dialect="namirial")
        store.record(change(uuid=f"q{number}", at_ms=AT + number), dialect="qlara")
    messages = store.messages
    store.run(messages.to_phone("acme", "+233200000001", AT + 1, 2, everything, look))
    store.run(messages.with_reference("acme", "k", AT + 1, 9, everything, look))
    asked = messages.sent_between("acme", "SMS", AT, AT, now_ms=AT, skip=0, count=9, look=look)
    store.run(asked)
    assert [2, 3, 1, 3] == told


def test_no_other_workspace(store: Store) -> None:
    """Nothing of one workspace is found by another one, by whatever it asks."""
    told = {"campaign_id": "c", "customer_message_id": "o", "reference": {"key": "k"}}
    for dialect in ("zeckta", "namirial", "qlara"):
        store.record(change(uuid=f"m-{dialect}", workspace=f"of-{dialect}", **told), dialect=dialect)
    messages, number = store.messages, "+233200000001"
    assert [] == store.run(messages.get_many("spy", ["m-zeckta", "m-namirial", "m-qlara"]))
    assert None is store.run(messages.campaign("spy", "c"))
    assert [] == store.run(messages.recipients("spy", "c", 0, 9))
    assert [] == store.run(messages.to_phone("spy", number, AT + 1, 9, everything))
    assert [] == store.run(messages.with_reference("spy", "k", AT + 1, 9, everything))
    assert {} == store.run(messages.of_customer("spy", "SMS", ["o", "m-qlara"]))
    assert [] == store.run(messages.sent_between("spy", "SMS", 0, AT + 9, now_ms=AT, skip=0, count=9))


def test_retention_is_of_the_last_change(redis_url: str) -> None:
    """A message is forgotten so long after its last change, and what leads to it two days later."""
    store = Store(redis_url, retention_ms=60_000)
    store.record(change("SENT"), dialect="namirial")
    lives = [store.plain.pttl(key) for key in sorted(store.plain.keys("*:status*"))]
    assert [True, True] == [59_000 < lives[1] <= 60_000, 172_000_000 < lives[0] <= 172_860_000]
    store.close()


def test_only_what_the_platform_looks_up_by(store: Store) -> None:
    """Memory is spent only on look-ups that somebody can make."""
    told = {"campaign_id": "c", "customer_message_id": "o", "reference": {"key": "k"}}
    kinds = {}
    for dialect in ("zeckta", "sendexa", "namirial", "qlara"):
        store.plain.flushall()
        store.record(change(**told), dialect=dialect)
        kinds[dialect] = sorted(key.decode().split(":")[1] for key in store.plain.keys("*:status*"))
    assert {
        "zeckta": ["status", "status-campaign", "status-recipients"],
        "sendexa": ["status"],
        "namirial": ["status", "status-phone", "status-reference"],
        "qlara": ["status", "status-customer", "status-time"],
    } == kinds


def test_retention_of_a_week() -> None:
    """The tests' retention is the default."""
    assert 7 * 86_400_000 == RETENTION_MS
