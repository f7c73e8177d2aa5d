"""What a status change must look like, and what comes back out of it."""

import copy
import functools
import gzip
import inspect
import json
import pickle
import pydoc
import re
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dispatcher.errors import InvalidInput
from dispatcher.model import (
    Message,
    MessageError,
    Status,
    StatusChange,
    check_not_ahead,
    decode_json,
    encode_json,
    iso,
    timestamp_ms,
)
from dispatcher.records import Record
from dispatcher.rules.dialects import dialects
from tests.unit.test_fast_decode import alike

STAMP = "2026-06-09T13:04:57.487133482Z"
MINIMAL: dict[str, Any] = {
    "workspace": "acme",
    "status": "DELIVERED",
    "timestamp": STAMP,
    "message": {"uuid": "m-1", "src": "ZECKTA", "dest": "+233202007745"},
}
FULL: dict[str, Any] = {
    "eventId": "event-1",
    **MINIMAL,
    "callbackUrl": "https://example.com/hook",
    "ttlSeconds": 3600,
    "message": {
        **MINIMAL["message"],
        "channel": "RCS",
        "segments": 1,
        "units": 2,
        "attempts": 3,
        "cost": 0.05,
        "currency": "GHS",
        "campaignId": "c-1",
        "customerMessageId": "cm-1",
        "network": "MTN",
        "part": 1,
        "totalParts": 2,
        "acceptedAt": STAMP,
        "webhookConfigurationId": "w-1",
        "reference": {"service": "otp"},
        "provider": {"name": "carrier"},
    },
    "error": {"code": "E004", "message": "Message expired"},
}
FIELDS = [name for name in FULL if name not in ("message", "error")]
FIELDS += [f"{part}.{name}" for part in ("message", "error") for name in FULL[part]]
REQUIRED = ["workspace", "status", "timestamp", "message", "message.uuid", "message.src", "message.dest"]
REQUIRED += ["error.code"]
NOT_ALLOWED = {
    "eventId": "must be 1 to 128 letters, digits, _ or -; left out, one is derived",
    "workspace": "must be 1 to 64 letters, digits, _ or -",
    "message.uuid": "must be 1 to 64 letters, digits, dots, _ or -",
}


@pytest.fixture(scope="module", autouse=True)
def read_alike() -> Iterator[None]:
    """Whatever is read from JSON here is read alike by a worker's decoder."""
    own = StatusChange.from_json

    @functools.wraps(own)
    def both(raw: Any) -> StatusChange:
        return alike(raw, own) if isinstance(raw, bytes | str) else own(raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatusChange, "from_json", both)
        yield


def changed(path: str, value: object, document: dict[str, Any] = FULL) -> dict[str, Any]:
    result = copy.deepcopy(document)
    *parents, name = path.split(".")
    (result[parents[0]] if parents else result)[name] = value
    return result


def without(path: str) -> dict[str, Any]:
    result = copy.deepcopy(FULL)
    *parents, name = path.split(".")
    del (result[parents[0]] if parents else result)[name]
    return result


def read(document: object) -> StatusChange:
    return StatusChange.from_json(json.dumps(document).encode())


def read_or_error(document: object) -> StatusChange | str:
    try:
        return read(document)
    except InvalidInput as error:
        return str(error)


def refusal(raw: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        StatusChange.from_json(raw)
    return str(caught.value)


def refusal_of(path: str, value: object) -> str:
    return refusal(json.dumps(changed(path, value)).encode())


def with_cost(text: str) -> bytes:
    """A status change whose cost is this very text."""
    return json.dumps(changed("message.cost", "COST")).replace('"COST"', text).encode()


def test_every_field_is_read() -> None:
    """Each camelCase field of the JSON is the snake_case one of the same name."""
    expected = StatusChange(
        event_id="event-1",
        workspace="acme",
        status=Status.DELIVERED,
        timestamp=STAMP,
        callback_url="https://example.com/hook",
        ttl_seconds=3600,
        message=Message(
            uuid="m-1",
            src="ZECKTA",
            dest="+233202007745",
            channel="RCS",
            segments=1,
            units=2,
            attempts=3,
            cost=Decimal("0.05"),
            currency="GHS",
            campaign_id="c-1",
            customer_message_id="cm-1",
            network="MTN",
            part=1,
            total_parts=2,
            accepted_at=STAMP,
            webhook_configuration_id="w-1",
            reference={"service": "otp"},
            provider={"name": "carrier"},
        ),
        error=MessageError(code="E004", message="Message expired"),
    )
    assert expected == read(FULL)


def test_required_fields_are_enough() -> None:
    """Everything but the required fields may be left out; the channel is SMS then."""
    change = read(MINIMAL)
    assert Message(uuid="m-1", src="ZECKTA", dest="+233202007745", channel="SMS") == change.message
    assert (None, None, None) == (change.callback_url, change.ttl_seconds, change.error)


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_field_is_named(path: str) -> None:
    """A required field that is missing is an error that names it."""
    assert f"{path}: is required" == refusal(json.dumps(without(path)).encode())


@pytest.mark.parametrize("path", ["colour", "message.colour", "error.colour"])
def test_an_unknown_field_is_refused(path: str) -> None:
    """A field that nobody knows is an error that names it."""
    assert f"{path}: is not a known field" == refusal_of(path, 1)


@pytest.mark.parametrize("path", ["event_id", "callback_url", "ttl_seconds", "message.campaign_id"])
def test_json_names_are_camel_case(path: str) -> None:
    """The names of Python are not known in JSON: it is camelCase only."""
    document = changed(path, 1 if path == "ttl_seconds" else "x", MINIMAL)
    words = path.rpartition(".")[2].split("_")
    meant = words[0] + "".join(word.title() for word in words[1:])
    assert f"{path}: is not a known field; did you mean {meant}?" == refusal(json.dumps(document).encode())


@pytest.mark.parametrize("field", ["reference", "provider"])
def test_reference_and_provider_are_free(field: str) -> None:
    """Inside reference and provider any JSON is kept as it is."""
    free = {"any name": [1, None, {"b": True, "": "ü"}], "x\ny": {}}
    assert free == json.loads(read(changed(f"message.{field}", free)).to_json())["message"][field]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("eventId", "aZ09_-"),
        ("eventId", "x" * 128),
        ("workspace", "aZ09_-"),
        ("workspace", "x" * 64),
        ("message.uuid", "aZ09._-"),
        ("message.uuid", "x" * 64),
    ],
)
def test_names_may_be_any_of_their_characters(path: str, value: str) -> None:
    """Ids of every allowed character, and of the greatest length, are taken."""
    name = path.rpartition(".")[2]
    document = json.loads(read(changed(path, value)).to_json())
    assert value == (document["message"] if "." in path else document)[name]


@pytest.mark.parametrize("value", ["a b", "a:b", "a\rb", "a\nb", "a\n", "a\r", "ä", "a\u0000", "x" * 129])
@pytest.mark.parametrize("path", ["eventId", "workspace", "message.uuid"])
def test_other_characters_are_refused(path: str, value: str) -> None:
    """Blanks, line ends, colons, letters beyond ASCII and too long ids never reach a Redis key."""
    assert f"{path}: {NOT_ALLOWED[path]}" == refusal_of(path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("eventId", "a.b"),
        ("eventId", ""),
        ("workspace", "a.b"),
        ("workspace", ""),
        ("workspace", "x" * 65),
        ("message.uuid", ""),
        ("message.uuid", "x" * 65),
    ],
)
def test_each_id_has_its_own_limits(path: str, value: str) -> None:
    """A dot is for message ids only, an id is never empty, and 64 characters are the end of all but eventIds."""
    assert f"{path}: {NOT_ALLOWED[path]}" == refusal_of(path, value)


@pytest.mark.parametrize("value", [5, True, 0.5, [], {}])
@pytest.mark.parametrize(
    "path",
    ["eventId", "workspace", "timestamp", "callbackUrl", "message.src", "message.acceptedAt", "error.code"],
)
def test_text_is_text(path: str, value: object) -> None:
    """Numbers and the like are not turned into text."""
    assert refusal_of(path, value).startswith(f"{path}: must be text")


@pytest.mark.parametrize(
    ("path", "longest"),
    [("message.src", 256), ("message.dest", 256), ("error.message", 1024), ("callbackUrl", 2048)],
)
def test_text_has_an_end(path: str, longest: int) -> None:
    """Text of the greatest length is taken, one character more is not."""
    assert read(changed(path, "x" * longest))
    assert refusal_of(path, "x" * (longest + 1)).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "status",
    [
        *("SCHEDULED", "QUEUED", "PROCESSING", "SUBMITTED", "BUFFERED", "SENT", "DELIVERED", "READ"),
        *("FAILED", "UNDELIVERABLE", "EXPIRED", "REJECTED", "UNKNOWN"),
    ],
)
def test_canonical_statuses_are_taken(status: str) -> None:
    """All thirteen canonical statuses are known."""
    assert status == read(changed("status", status)).status


@pytest.mark.parametrize("status", ["delivered", "SEEN", "", " SENT", 5, None, ["SENT"]])
def test_other_statuses_are_refused(status: object) -> None:
    """Any other status is an error that lists the known ones."""
    assert refusal_of("status", status).startswith("status: must be one of SCHEDULED, QUEUED, ")


TIMESTAMPS = [
    (STAMP, 1781010297487),
    ("2026-06-09T13:04:57Z", 1781010297000),
    ("2026-06-09T13:04:57.4Z", 1781010297400),
    ("2026-06-09t13:04:57.487z", 1781010297487),
    ("2026-06-09T15:04:57.487+02:00", 1781010297487),
    ("2026-06-09T07:34:57.487999999-05:30", 1781010297487),
    ("2024-02-29T00:00:00Z", 1709164800000),
    ("1969-12-31T23:59:59.250Z", -750),
]


@pytest.mark.parametrize(("text", "ms"), TIMESTAMPS)
def test_a_timestamp_is_kept_as_given(text: str, ms: int) -> None:
    """A timestamp keeps its very characters, nanoseconds too, and counts in milliseconds."""
    change = read(changed("timestamp", text))
    assert (text, ms) == (change.timestamp, timestamp_ms(change.timestamp))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-06-09",
        "2026-06-09T13:04Z",
        "2026-06-09T13:04:57",
        "2026-06-09T13:04:57.",
        "2026-06-09T13:04:57.Z",
        "2026-06-09T13:04:57,5Z",
        "2026-06-09T13:04:57.1234567890Z",
        "2026-06-09 13:04:57Z",
        "2026-06-09T13:04:57+0200",
        "2026-06-09T13:04:57+02",
        "2026-06-09T13:04:57+24:00",
        "2026-06-09T13:04:57+02:60",
        "2026-06-09T13:04:57 Z",
        "2026-06-09T13:04:57Z\n",
        " 2026-06-09T13:04:57Z",
        "2026-02-30T13:04:57Z",
        "2025-02-29T13:04:57Z",
        "2026-13-01T13:04:57Z",
        "2026-06-00T13:04:57Z",
        "2026-06-09T24:00:00Z",
        "2026-06-09T13:60:00Z",
        "2026-06-09T13:04:60Z",
        "0000-01-01T00:00:00Z",
        "+2026-06-09T13:04:57Z",
        "２026-06-09T13:04:57Z",
    ],
)
@pytest.mark.parametrize("path", ["timestamp", "message.acceptedAt"])
def test_other_timestamps_are_refused(path: str, text: str) -> None:
    """No zone, ten digits of a second, a day or zone that does not exist: an error that names the field."""
    assert refusal_of(path, text).startswith(f"{path}: ")


@given(
    whole=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda at: at.replace(microsecond=0)),
    fraction=st.text("0123456789", max_size=9),
    offset=st.integers(-1439, 1439),
)
def test_a_timestamp_counts_what_it_says(whole: datetime, fraction: str, offset: int) -> None:
    """Every instant, fraction and zone gives the milliseconds since 1970, the rest cut off."""
    aware = whole.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = aware.isoformat()[:19] + ("." + fraction if fraction else "") + aware.isoformat()[19:]
    since = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert since + int(fraction.ljust(3, "0")[:3]) == timestamp_ms(text)


@given(
    st.text()
    | st.from_regex(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,10})?([Zz]|[+-]\d\d:\d\d)?\n?", fullmatch=True)
)
def test_any_text_is_a_timestamp_or_a_value_error(text: str) -> None:
    """Reading a timestamp gives a whole number or a ValueError, whatever the text."""
    with suppress(ValueError):
        assert isinstance(timestamp_ms(text), int)


@given(st.integers(0, 4_102_444_800_000))
def test_iso_is_read_back(ms: int) -> None:
    """What `iso` writes in UTC, `timestamp_ms` reads."""
    assert "1970-01-01T00:00:00.001Z" == iso(1)
    assert ms == timestamp_ms(iso(ms))


def test_an_aware_datetime_is_a_timestamp() -> None:
    """In Python a datetime with a zone may be given; it is written as ISO 8601."""
    at = datetime(2026, 6, 9, 13, 4, 57, 487133, tzinfo=UTC)
    change = StatusChange(**{**MINIMAL, "timestamp": at})
    assert "2026-06-09T13:04:57.487133Z" == change.timestamp


def test_a_naive_datetime_is_refused() -> None:
    """A datetime without a zone could mean any instant of a day."""
    with pytest.raises(InvalidInput, match="needs a zone"):
        StatusChange(**{**MINIMAL, "timestamp": datetime(2026, 6, 9)})


@pytest.mark.parametrize("seconds", [1, 172_800, 604_800])
def test_a_ttl_of_up_to_a_week_is_taken(seconds: int) -> None:
    """ttlSeconds is a whole number from a second to a week."""
    assert seconds == read(changed("ttlSeconds", seconds)).ttl_seconds


@pytest.mark.parametrize("seconds", [0, -1, 604_801, 10**30, True, False, 60.0, 1.5, "60", []])
def test_other_ttls_are_refused(seconds: object) -> None:
    """Beyond its bounds, or no whole number, ttlSeconds is an error that names it."""
    assert refusal_of("ttlSeconds", seconds).startswith(
        "ttlSeconds: must be a whole number from 1 to 604,800"
    )


@pytest.mark.parametrize("value", [-1, 1_000_001, 1.0, "1", True])
@pytest.mark.parametrize("name", ["segments", "units", "attempts", "part", "totalParts"])
def test_counts_are_whole_numbers(name: str, value: object) -> None:
    """Counts are whole numbers from 0 to a million."""
    assert refusal_of(f"message.{name}", value).startswith(
        f"message.{name}: must be a whole number from 0 to 1,000,000"
    )


COSTS = ["0", "5", "0.05", "0.1", "0.10", "1e-7", "12345678.123456", "123456789012.123456789012"]


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("text", COSTS)
def test_a_cost_is_printed_as_it_came(text: str, quote: str) -> None:
    """A cost, given as number or text, never changes a digit: neither on the queue nor in the callback."""
    change = StatusChange.from_json(with_cost(f"{quote}{text}{quote}"))
    body = encode_json(dialects()["zeckta"].body(change, "MESSAGE_DELIVERED", 0))
    printed = [re.findall(rb'"cost":([^,}]+)', raw)[0].decode().lower() for raw in (change.to_json(), body)]
    assert [text, text] == printed


@pytest.mark.parametrize(
    ("cost", "printed"),
    [
        (0.05, b"0.05"),
        (0.1, b"0.1"),
        (1e-7, b"1e-7"),
        (12345678.123456, b"12345678.123456"),
        ("0.05", b"0.05"),
        (Decimal("0.050"), b"0.050"),
        (5, b"5"),
    ],
)
def test_a_cost_of_python_is_printed_as_it_reads(cost: Any, printed: bytes) -> None:
    """A float's cost is its shortest decimal, not its binary expansion."""
    change = StatusChange(**{**MINIMAL, "message": Message(uuid="m", src="a", dest="b", cost=cost)})
    assert b'"cost":' + printed in change.to_json().replace(b"E", b"e")


@pytest.mark.parametrize(
    "text",
    [
        *("-1", "-0.01", "true", "[]", "{}", "1e-13", "1234567890123", "1e24", "1e400", '"1e400"'),
        *('"abc"', '""', '"0,05"', '"NaN"', '"sNaN"', '"Infinity"', '"1e99999999999999999999"'),
    ],
)
def test_other_costs_are_refused(text: str) -> None:
    """A cost that is negative, endless, too fine or no number is an error that names the field."""
    assert refusal(with_cost(text)).startswith("message.cost: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-0.01", "must be from 0 to below 1,000,000,000,000; it is -0.01"),
        ("1E400", "must be from 0 to below 1,000,000,000,000; it is 1E+400"),
        ("9" * 4000, "must be from 0 to below 1,000,000,000,000; it is 1.00000E+4000"),
        ("0.0000000000001", "must have at most 12 decimals; it has 13"),
    ],
)
def test_a_refused_cost_says_which_limit(text: str, says: str) -> None:
    """The error says which limit a cost is beyond, and by how much, in a few characters."""
    assert f"message.cost: {says}" == refusal(with_cost(text))


@pytest.mark.parametrize("raw", [None, {}, 7, [b"{}"]])
def test_json_is_bytes_or_text(raw: Any) -> None:
    """from_json of anything else says what it takes, as every other invalid input does."""
    with pytest.raises(
        InvalidInput, match=r"^is (None|an? \w+): from_json takes JSON as bytes or text; from_dict"
    ):
        StatusChange.from_json(raw)


@pytest.mark.parametrize(
    ("hours", "says"), [(1.1, "1.1 h"), (47.9, "47.9 h"), (72, "3 days"), (2.4e7, "1,000,000 days")]
)
def test_far_ahead(hours: float, says: str) -> None:
    """How far a timestamp lies ahead is said in a unit that people read."""
    with pytest.raises(InvalidInput, match=f"^timestamp: lies {says} ahead; at most 1 h is allowed$"):
        check_not_ahead(round(hours * 3_600_000), 0)


CHANNELS = [
    ("sms", "SMS"),
    ("whatsapp", "WHATSAPP"),
    ("WhatsApp", "WHATSAPP"),
    ("Rcs", "RCS"),
    ("Viber", "Viber"),
]


@pytest.mark.parametrize(("given", "read"), CHANNELS)
def test_the_case_of_a_channel_decides_nothing(given: str, read: str) -> None:
    """A channel that platforms know is written as they do, so that its READ is sent in whatever case a backend names it."""
    message = Message(uuid="m", src="a", dest="b", channel=given)
    change = StatusChange(workspace="a", status="READ", timestamp=STAMP, message=message)
    assert read == change.message.channel
    sent = "READ" if read in ("RCS", "WHATSAPP") else None
    assert sent == dialects()["qlara"].event_type(change)
    assert ("STATUS_UPDATE" if read == "RCS" else None) == dialects()["namirial"].event_type(change)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"{", "not valid JSON: "),
        (b"{} {}", "not valid JSON: "),
        (b"{'a': 1}", "not valid JSON: "),
        (with_cost("NaN"), "not valid JSON: "),
        (with_cost("Infinity"), "not valid JSON: "),
        (with_cost("-Infinity"), "not valid JSON: "),
        (with_cost("1e99999999999999999999"), ""),
        (with_cost("1" * 5000), ""),
        (b'{"workspace": "\\ud800"}', "not valid JSON: "),
        (b'{"workspace": "\\udc00 \\ud800"}', "not valid JSON: "),
        (b'{"workspace": "\xff"}', "not valid UTF-8: invalid start byte at byte 15"),
        (b'{"workspace": "\xed\xa0\x80"}', "not valid UTF-8: invalid continuation byte at byte 15"),
        (b"[" + json.dumps(MINIMAL).encode() + b"]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"[" * 30_000 + b"]" * 30_000, "nested too deeply"),
        (b'{"message":' * 5_000 + b"1" + b"}" * 5_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark (BOM): send UTF-8 without one"),
        *(
            (json.dumps(MINIMAL).encode(code), "is UTF-16: send UTF-8")
            for code in ("utf-16", "utf-16-le", "utf-16-be")
        ),
        *(
            (json.dumps(MINIMAL).encode(code), "is UTF-32: send UTF-8")
            for code in ("utf-32", "utf-32-le", "utf-32-be")
        ),
        (gzip.compress(b"{}"), "is compressed (gzip): send it as it is"),
        (zlib.compress(b"{}"), "is compressed (deflate): send it as it is"),
        (b"[" * 100_000, "is 100,000 bytes long; the limit is 65,536"),
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes, text: str) -> None:
    """Broken, endless or too deep JSON is an InvalidInput that says so, and never takes the reader down."""
    assert refusal(raw).startswith(text)


def test_a_hundred_thousand_levels_are_refused() -> None:
    """Nesting deeper than the stack is an InvalidInput, also where nothing limits the length."""
    with pytest.raises(InvalidInput, match=r"^nested too deeply$"):
        decode_json(b"[" * 100_000 + b"]" * 100_000)


def test_the_limit_is_64_kib() -> None:
    """65,536 bytes are read, one more is not."""
    raw = json.dumps(FULL).encode()
    assert read(FULL) == StatusChange.from_json(raw.ljust(65_536))
    assert "is 65,537 bytes long; the limit is 65,536" == refusal(raw.ljust(65_537))


def test_the_last_of_equal_names_counts() -> None:
    """Where JSON has a name twice, the last value counts, as for most readers."""
    raw = json.dumps(MINIMAL).encode()[:-1] + b', "status": "SENT"}'
    assert Status.SENT == StatusChange.from_json(raw).status


def test_all_errors_come_at_once() -> None:
    """One line names everything that is wrong."""
    document = {"workspace": "a b", "status": "SENT", "timestamp": STAMP, "colour": 1}
    expected = f"workspace: {NOT_ALLOWED['workspace']}; message: is required; colour: is not a known field"
    assert expected == refusal(json.dumps(document).encode())


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "a\u2028b"])
def test_a_field_name_cannot_break_the_line(name: str) -> None:
    """An error stays one line even where the unknown field's name has line ends."""
    text = refusal_of(name, 1)
    assert [text] == text.splitlines()
    assert text.endswith("is not a known field")


def json_values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | numbers
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )


@given(st.binary())
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Bytes that are no status change raise InvalidInput in one line, and nothing else."""
    text = refusal(raw)
    assert [text] == text.splitlines()


@given(path=st.sampled_from([*FIELDS, "message", "error"]), value=json_values(st.floats(allow_nan=False)))
def test_any_value_is_read_or_refused(path: str, value: object) -> None:
    """Any JSON in any field is read, or refused by an InvalidInput in one line that names the field."""
    match read_or_error(changed(path, value)):
        case StatusChange() as change:
            assert change == StatusChange.from_json(change.to_json())
        case text:
            assert text.startswith((path, "not valid JSON"))
            assert [text] == text.splitlines()


def words(alphabet: str, longest: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=1, max_size=longest)


LETTERS = "abcXYZ019_-"
TEXTS = st.text(min_size=1, max_size=20)
COUNTS = st.none() | st.integers(0, 1_000_000)
FREE = st.none() | st.dictionaries(
    TEXTS, json_values(st.decimals(allow_nan=False, allow_infinity=False)), max_size=3
)
CHANGES = st.builds(
    StatusChange,
    event_id=words(LETTERS, 128),
    workspace=words(LETTERS, 64),
    status=st.sampled_from(Status),
    timestamp=st.sampled_from([text for text, _ in TIMESTAMPS]),
    callback_url=st.none() | TEXTS,
    ttl_seconds=st.none() | st.integers(1, 604_800),
    message=st.builds(
        Message,
        uuid=words(LETTERS + ".", 64),
        src=TEXTS,
        dest=TEXTS,
        channel=TEXTS,
        segments=COUNTS,
        part=COUNTS,
        cost=st.none() | st.decimals(0, 10**12 - 1, places=6),
        currency=st.none() | TEXTS,
        reference=FREE,
        provider=FREE,
    ),
    error=st.none() | st.builds(MessageError, code=TEXTS, message=st.none() | TEXTS),
)


@given(CHANGES)
def test_what_is_written_is_read_back(change: StatusChange) -> None:
    """A status change survives the queue: the same fields, the same digest."""
    again = StatusChange.from_json(change.to_json())
    assert change == again
    assert change.digest() == again.digest()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity")])
def test_no_number_that_json_lacks_is_written(number: Any) -> None:
    """NaN and Infinity are refused at the producer, not turned into null or into broken JSON."""
    message = {**MINIMAL["message"], "reference": {"deep": [number]}}
    with pytest.raises(ValueError, match=r"NaN|Infinity|finite"):
        StatusChange(**{**MINIMAL, "message": message}).to_json()


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, object()])
def test_what_cannot_be_written_is_refused(value: object) -> None:
    """Lone surrogates and objects that are no JSON raise InvalidInput when written."""
    change = StatusChange(**{**MINIMAL, "message": {**MINIMAL["message"], "reference": {"x": value}}})
    with pytest.raises(InvalidInput, match="cannot be written as JSON"):
        change.to_json()


def test_a_lone_surrogate_is_refused_in_python() -> None:
    """Text that no UTF-8 can hold is refused where it is given."""
    with pytest.raises(InvalidInput, match=r"message\.src"):
        StatusChange(**{**MINIMAL, "message": {**MINIMAL["message"], "src": "\ud800"}})


def nested(levels: int) -> dict[str, Any]:
    """Objects and lists in each other, so many levels."""
    value: Any = {}
    for number in range(levels - 2):
        value = [value] if number % 2 else {"x": value}
    return {"x": value}


@pytest.mark.parametrize("field", ["reference", "provider"])
def test_a_deep_value_is_refused_at_the_door(field: str) -> None:
    """32 levels are taken, 33 and 960 are not; the error names the field and the limit, however the change comes."""
    message = f"^message.{field}: is nested too deeply; the limit is 32 levels$"
    raw = json.dumps(changed(f"message.{field}", "deep")).replace('"deep"', '{"x":' * 300 + "{}" + "}" * 300)
    assert re.match(message, refusal(raw.encode()))
    for levels in (33, 960):
        document = changed(f"message.{field}", nested(levels))
        with pytest.raises(InvalidInput, match=message):
            StatusChange.from_dict(document)
        with pytest.raises(InvalidInput, match="nested too deeply"):
            StatusChange(**document)
    taken = read(changed(f"message.{field}", nested(32)))
    assert taken == StatusChange.from_json(taken.to_json())


def test_a_value_that_grew_deep_is_not_written() -> None:
    """A reference that was changed after it was checked is checked again, and a circle ends."""
    change = read(FULL)
    reference = change.message.reference
    assert reference is not None
    reference |= {"a": reference, "b": reference}
    with pytest.raises(InvalidInput, match=r"^message\.reference: is nested too deeply"):
        change.to_json()


@dataclass
class Boxed:
    """A value in an object."""

    value: object


class Modelled(BaseModel):
    """The same in a pydantic model."""

    value: object


class Struck(msgspec.Struct):
    """The same in a Struct."""

    value: object


@pytest.mark.parametrize("kind", [lambda value: Boxed(value), lambda value: Modelled(value=value), Struck])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "has a number that JSON lacks"),
        (Decimal("Infinity"), "has a number that JSON lacks"),
        ({"a", "b"}, "has a set, which JSON lacks"),
        ({Decimal("1.5"): 1}, "has a name that is not text"),
        (nested(31), r"message\.provider: is nested too deeply; the limit is 32 levels"),
    ],
    ids=["NaN", "Infinity", "set", "name", "deep"],
)
def test_what_is_in_an_object_is_looked_at(
    kind: Callable[[object], object], value: Any, problem: str
) -> None:
    """Objects of one's own are written as their fields, and refused where a worker would reject these or read others."""
    message = {**MINIMAL["message"], "provider": {"x": kind(value)}}
    with pytest.raises(InvalidInput, match=f"^{problem}"):
        StatusChange(**{**MINIMAL, "message": message}).to_json()
    message["provider"] = {"x": kind({"a": [1.5]})}
    written = StatusChange(**{**MINIMAL, "message": message}).to_json()
    assert {"x": {"value": {"a": [Decimal("1.5")]}}} == StatusChange.from_json(written).message.provider


@dataclass
class Counting:
    """One whose class has more than its fields."""

    value: int
    known: ClassVar[set[str]] = {"a", "b"}
    given: InitVar[int] = 3


def test_what_is_of_a_class_is_not_in_its_objects() -> None:
    """Variables of a dataclass, and what only its constructor takes, are not written, so they refuse nothing."""
    message = {**MINIMAL["message"], "provider": {"x": Struck(Counting(7))}}
    written = StatusChange(**{**MINIMAL, "message": message}).to_json()
    assert {"x": {"value": {"value": 7}}} == StatusChange.from_json(written).message.provider


def test_a_subclass_with_fields_of_its_own() -> None:
    """It may add methods; a field that no worker knows is refused when it is written."""

    class Mine(StatusChange, frozen=True):
        def shout(self) -> str:
            return self.status.lower()

    class Noted(StatusChange, frozen=True):
        note_of_mine: str = "here"

    assert read(MINIMAL) == StatusChange.from_json(Mine(**MINIMAL).to_json())
    with pytest.raises(InvalidInput, match=r"^a Noted has fields of its own \(noteOfMine\), which no worker"):
        Noted(**MINIMAL).to_json()


def test_a_huge_exponent_is_a_number() -> None:
    """What JSON can say is written as it came, though no float can hold it."""
    message = {**MINIMAL["message"], "provider": {"x": Decimal("1E+999999999")}}
    change = StatusChange(**{**MINIMAL, "message": message})
    assert b'"provider":{"x":1E+999999999}' in change.to_json()


def with_filler(length: int) -> StatusChange:
    message = {**MINIMAL["message"], "reference": {"x": "y" * length}}
    return StatusChange(**{**MINIMAL, "message": message})


def test_what_is_too_long_is_not_written() -> None:
    """65,536 bytes are written; one more, which the queue would refuse, is an error at the producer."""
    room = 65_536 - len(with_filler(0).to_json())
    assert with_filler(room) == StatusChange.from_json(with_filler(room).to_json())
    with pytest.raises(InvalidInput, match=r"^is 65,537 bytes long as JSON; the limit is 65,536$"):
        with_filler(room + 1).to_json()


def test_only_what_has_a_value_is_written() -> None:
    """The JSON on the queue has the derived eventId and the channel, and no null."""
    change = read(MINIMAL)
    message = {**MINIMAL["message"], "channel": "SMS"}
    assert {**MINIMAL, "eventId": change.event_id, "message": message} == json.loads(change.to_json())


def test_a_status_change_is_frozen() -> None:
    """Neither a status change nor its message can be changed once it is made."""
    change = read(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        change.status = Status.SENT  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        change.message.dest = "+1"  # type: ignore[misc]


@pytest.mark.parametrize(("part", "written"), [(None, ""), (0, "0"), (2, "2")])
def test_an_event_id_is_derived(part: int | None, written: str) -> None:
    """Without an eventId it is the UUIDv5 of workspace, message, part, status and the timestamp as given."""
    name = f"acme\nm-1\n{written}\nDELIVERED\n{STAMP}"
    expected = str(uuid.uuid5(uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8"), name))
    assert expected == read(changed("message.part", part, MINIMAL)).event_id


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("workspace", "other", False),
        ("message.uuid", "m-2", False),
        ("message.part", 1, False),
        ("status", "SENT", False),
        ("timestamp", "2026-06-09T15:04:57.487133482+02:00", False),
        ("message.cost", 0.05, True),
        ("message.src", "OTHER", True),
        ("callbackUrl", "https://example.com", True),
    ],
)
def test_a_derived_event_id_depends_on_five_fields(path: str, value: object, same: bool) -> None:
    """Another workspace, message, part, status or timestamp text is another event; nothing else is."""
    assert same is (read(MINIMAL).event_id == read(changed(path, value, MINIMAL)).event_id)


def reversed_keys(value: Any) -> Any:
    return {k: reversed_keys(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value


def test_digests_do_not_see_the_order_of_names() -> None:
    """Two texts of one status change have one digest: 16 characters."""
    document = changed("message.reference", {"a": {"x": 1, "y": 2}, "b": 3})
    digest = read(document).digest()
    assert digest == read(reversed_keys(document)).digest()
    assert re.fullmatch("[A-Za-z0-9_-]{16}", digest)


def test_digests_do_not_see_who_derived_the_id() -> None:
    """An eventId given as it would be derived makes no other status change of it."""
    change = read(MINIMAL)
    assert change.digest() == read({**MINIMAL, "eventId": change.event_id}).digest()


OTHER_VALUES = {
    "status": "SENT",
    "timestamp": "2026-06-09T13:04:57.487133483Z",
    "message.acceptedAt": "2026-06-09T13:04:57.487133483Z",
    "message.reference": {"service": "otp", "key": None},
    "message.provider": {"name": ["carrier"]},
}


def value_at(path: str) -> Any:
    *parents, name = path.split(".")
    return (FULL[parents[0]] if parents else FULL)[name]


@pytest.mark.parametrize("path", FIELDS)
def test_digests_see_every_value(path: str) -> None:
    """Another value in any field is another status change."""
    value = value_at(path)
    other = OTHER_VALUES.get(path, value + 1 if isinstance(value, int | float) else f"{value}2")
    assert read(FULL).digest() != read(changed(path, other)).digest()


@pytest.mark.parametrize("path", [path for path in [*FIELDS, "error"] if path not in REQUIRED])
def test_digests_see_every_gap(path: str) -> None:
    """A status change without one of its optional fields is another one."""
    assert read(FULL).digest() != read(without(path)).digest()


GIVEN: dict[str, Any] = {"uuid": "m-1", "src": "ACME", "dest": "+233202007745"}


def refusal_in_python(make: Callable[[], object]) -> str:
    with pytest.raises(InvalidInput) as caught:
        make()
    return str(caught.value)


WRONG_IN_PYTHON: dict[str, tuple[Callable[[], object], str]] = {
    "a field of Message": (
        lambda: Message(**GIVEN | {"dest": ""}),
        "dest: must have 1 to 256 characters; it has 0",
    ),
    "a name in Python's words": (
        lambda: Message(**GIVEN, campaign_id=7),
        "campaign_id: must be text",
    ),
    "missing": (lambda: Message(uuid="m-1"), "src: is required; dest: is required"),
    "nothing": (lambda: MessageError(), "code: is required"),
    "None": (lambda: MessageError(code=None), "code: must be text"),
    "misspelt": (
        lambda: Message(**GIVEN, campaing_id="x"),
        "campaing_id: is not a known field; did you mean campaign_id?",
    ),
    "nothing like it": (lambda: Message(**GIVEN, zzz=1), "zzz: is not a known field"),
    "by position": (
        lambda: Message("m-1", "ACME"),
        "Message takes its fields by name: Message(uuid=…, src=…, dest=…)",
    ),
    "nested": (
        lambda: StatusChange(**{**MINIMAL, "message": GIVEN | {"dest": 5, "network": ""}}),
        "message.dest: must be text; message.network: must have 1 to 256 characters; it has 0",
    ),
    "nested misspelt": (
        lambda: StatusChange(**{**MINIMAL, "message": GIVEN | {"desst": "x"}}),
        "message.desst: is not a known field; did you mean dest?",
    ),
    "no message": (lambda: StatusChange(**{**MINIMAL, "message": "m-1"}), "message: must be an object"),
    "twice": (
        lambda: Message(**GIVEN, campaign_id="a", campaignId="b"),
        "campaign_id: is given twice, by two of its names",
    ),
    "bytes": (lambda: Message(**GIVEN | {"src": b"ACME"}), "src: must be text"),
    "another name's key": (
        lambda: Message(**GIVEN, reference={1: "x"}),
        "reference: has a name that is not text",
    ),
    "replace": (
        lambda: read(MINIMAL).replace(ttl_second=1),
        "ttl_second: is not a known field; did you mean ttl_seconds?",
    ),
    "model_copy with what is wrong": (
        lambda: read(MINIMAL).model_copy(update={"ttl_seconds": 0}),
        "ttl_seconds: must be a whole number from 1 to 604,800",
    ),
    "replace with what is wrong": (
        lambda: read(MINIMAL).replace(ttl_seconds=0),
        "ttl_seconds: must be a whole number from 1 to 604,800",
    ),
}


@pytest.mark.parametrize("case", WRONG_IN_PYTHON)
def test_what_is_wrong_in_python_is_named_by_its_names(case: str) -> None:
    """However a record is made, what is wrong is an InvalidInput that names the field as Python does, and the nearest name."""
    make, text = WRONG_IN_PYTHON[case]
    assert text == refusal_in_python(make)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (datetime(2026, 6, 9, 13, tzinfo=UTC), "2026-06-09T13:00:00Z"),
        (datetime(2026, 6, 9, 13, tzinfo=timezone(timedelta(hours=2))), "2026-06-09T13:00:00+02:00"),
        (datetime(2026, 6, 9, 13, tzinfo=timezone(timedelta(seconds=-968))), "2026-06-09T13:16:08Z"),
    ],
)
def test_every_datetime_that_is_taken_is_read_back(given: datetime, text: str) -> None:
    """An offset with seconds, as of local mean time, is one that ISO 8601 lacks: the time is written in UTC."""
    change = StatusChange(**{**MINIMAL, "timestamp": given})
    assert text == change.timestamp
    assert change == StatusChange.from_json(change.to_json())


def test_a_datetime_out_of_time_is_refused() -> None:
    """What lies before the year 1 in UTC is no time here."""
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    refused = refusal_in_python(lambda: StatusChange(**{**MINIMAL, "timestamp": early}))
    assert "timestamp: must lie in the years 1 to 9999, in UTC" == refused


class Word(str):
    """Text of a subclass, as Django's SafeString is."""


def test_text_of_a_subclass_is_text() -> None:
    """A subclass of str, an enum's value too, is kept as plain text, and is written as JSON."""
    message = Message(uuid=Word("m-1"), src=Status.SENT, dest=Word("+233"))
    assert [str, str, str] == [type(message.uuid), type(message.src), type(message.dest)]
    assert ("m-1", "SENT", "+233") == (message.uuid, message.src, message.dest)


def test_a_status_change_is_a_value() -> None:
    """It is copied, pickled, compared and kept in a set like any value; and two that differ are not equal."""
    change = read(FULL)
    same = [copy.copy(change), copy.deepcopy(change), pickle.loads(pickle.dumps(change)), read(FULL)]
    assert [change] * 4 == same
    assert {change} == set(same)
    assert change != change.replace(ttl_seconds=1)
    assert change != FULL
    del (fields := dict(change.__dict__))["event_id"]
    assert change.replace(event_id=None).event_id == StatusChange(**fields).event_id


def test_repr_shows_what_there_is_but_no_url() -> None:
    """What has a value is shown by the names of Python; a callback URL may hold a token."""
    shown = repr(read(FULL))
    assert "campaign_id='c-1'" in shown
    assert "example.com" not in shown
    assert "None" not in repr(read(MINIMAL))


def test_replace_derives_anew() -> None:
    """A copy with another status is another event, unless its eventId was given."""
    change, named = read(MINIMAL), read(FULL)
    assert read(changed("status", "SENT", MINIMAL)) == change.replace(status="SENT")
    assert named.event_id == named.replace(status="SENT").event_id
    assert "evt-2" == change.replace(event_id="evt-2").event_id
    assert change.replace(status="SENT") == change.model_copy(update={"status": "SENT"}, deep=True)
    assert change == change.model_copy()


def test_a_subclass_keeps_the_fields() -> None:
    """Who derives a class of their own has the same fields and checks."""

    class Own(StatusChange):
        pass

    own = Own(**MINIMAL)
    assert (type(own), read(MINIMAL).event_id) == (Own, own.event_id)


@pytest.mark.parametrize("kind", [StatusChange, Message, MessageError])
def test_every_field_stands_in_all_places(kind: type[Record]) -> None:
    """A field is checked, has its type, is a parameter, and is explained in the docstring: in each place the same."""
    fields = list(kind.model_fields)
    parameters = list(inspect.signature(kind.__init__).parameters)[1:]
    named = re.findall(r"^(\w+(?:, \w+)*): ", inspect.getdoc(kind) or "", re.M)
    explained = [name for names in named for name in names.split(", ")]
    assert set(fields) == set(parameters) == set(explained)
    assert fields == list(kind.__annotations__)


def test_help_reads_well() -> None:
    """help(StatusChange) starts with what it is, what each field means and what it can do; pydantic's own comes after."""
    StatusChange(**MINIMAL)  # some of help's text is another one once a model is used
    shown, rest, _ = pydoc.plain(pydoc.render_doc(StatusChange)).partition(" |  Data and other attributes")
    assert rest
    assert "ttl_seconds: age at which the callback expires, 1 to 604,800 s" in shown
    assert "timestamp: datetime.datetime | str" in shown
    assert len(shown.splitlines()) < 90
    assert 1 == shown.count("pydantic.main.BaseModel")
    assert [] == re.findall(
        r"\bmodel_|validat|lambda|<locals>|Annotated|eventId:|^ \|  _[a-z]\w+", shown, re.M
    )
    assert [] == [line for line in (StatusChange.__doc__ or "").splitlines() if len(line) > 78]
