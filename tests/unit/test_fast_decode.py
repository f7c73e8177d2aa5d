"""The fast decoder reads what `StatusChange.from_json` reads, to the same values, and refuses the rest in its words.

`alike` compares the two; test_model.py has everything that it reads go through it.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.fast_decode import Change, DecodedChange, DecodedError, DecodedMessage, status_change
from dispatcher.model import Message, MessageError, Status, StatusChange
from dispatcher.rules.dialects import dialects
from dispatcher.store.message_record import arguments

FULL: dict[str, Any] = {
    "eventId": "event-1",
    "workspace": "acme",
    "status": "DELIVERED",
    "timestamp": "2026-06-09T13:04:57.487133482Z",
    "callbackUrl": "https://example.com/hook",
    "ttlSeconds": 3600,
    "message": {
        "uuid": "m-1",
        "src": "ZECKTA",
        "dest": "+233202007745",
        "channel": "RCS",
        "segments": 1,
        "units": 2,
        "attempts": 3,
        "cost": 0.050,
        "currency": "GHS",
        "campaignId": "c-1",
        "customerMessageId": "cm-1",
        "network": "MTN",
        "part": 1,
        "totalParts": 2,
        "acceptedAt": "2026-06-09T13:04:55Z",
        "webhookConfigurationId": "w-1",
        "reference": {"service": "otp", "key": "k", "rate": 0.10},
        "provider": {"name": "carrier"},
    },
    "error": {"code": "E004", "message": "Message expired"},
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
}
"""Every field."""


def values(change: Change | Message | MessageError | DecodedMessage | DecodedError | None) -> Any:
    """The fields of a status change, however it was read. Costs as text: 0.1 is not 0.10."""
    if change is None:
        return None
    model = next(
        kind
        for kind, also in {
            StatusChange: DecodedChange,
            Message: DecodedMessage,
            MessageError: DecodedError,
        }.items()
        if isinstance(change, kind | also)
    )
    found = {name: getattr(change, name) for name in model.model_fields}
    return {
        name: values(value) if name in ("message", "error") and model is StatusChange else repr(value)
        for name, value in found.items()
    }


def alike(raw: bytes | str, from_json: Callable[[bytes | str], StatusChange]) -> StatusChange:
    """What `from_json` reads, once the other decoder has read the same. Raises InvalidInput if both do, in the same words."""
    change = read_or_words(from_json, raw)
    given = raw.encode(errors="surrogatepass") if isinstance(raw, str) else bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatusChange, "from_json", from_json)
        decoded = read_or_words(status_change, given)
    if isinstance(change, str):
        assert change == decoded
        raise InvalidInput(change)
    assert isinstance(decoded, DecodedChange), "valid, and not decoded by msgspec"
    assert values(change) == values(decoded)
    assert change.digest() == decoded.digest()
    return change


R = TypeVar("R")


def read_or_words(read: Callable[[Any], R], raw: object) -> R | str:
    """What it reads, or why it refuses to."""
    try:
        return read(raw)
    except InvalidInput as error:
        return str(error)


@pytest.mark.parametrize("dialect", sorted(dialects()))
@pytest.mark.parametrize("status", Status)
def test_callbacks_and_records_are_the_same(dialect: str, status: Status) -> None:
    raw = json.dumps(FULL | {"status": status}).encode()
    change, decoded, of = StatusChange.from_json(raw), status_change(raw), dialects()[dialect]
    event = of.event_type(change)
    assert event == of.event_type(decoded)
    if event:
        assert of.body(change, event, 0) == of.body(decoded, event, 0)
    assert arguments(change, dialect) == arguments(decoded, dialect)


def test_every_field_and_few() -> None:
    required = {name: FULL[name] for name in ("workspace", "status", "timestamp")}
    message = {name: FULL["message"][name] for name in ("uuid", "src", "dest")}
    for document in (FULL, {**required, "message": message}):
        alike(json.dumps(document).encode(), StatusChange.from_json)


def test_names_and_order_of_fields_are_the_models() -> None:
    """The digest of a status change depends on their order."""
    for decoded, model in (
        (DecodedChange, StatusChange),
        (DecodedMessage, Message),
        (DecodedError, MessageError),
    ):
        assert [*decoded.__struct_fields__] == [*model.model_fields]


@pytest.mark.parametrize(
    "wrong",
    [
        {"traceparent": ""},
        {"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"},
        {"traceparent": FULL["traceparent"] + "\n"},
        {"traceparent": None},
        {"tracestate": "a b "},
        {"error": {}},
        {"error": {"code": "E", "message": "x" * 1025}},
        {"message": FULL["message"] | {"acceptedAt": ""}},
        {"message": FULL["message"] | {"acceptedAt": None, "cost": -1}},
        {"message": None},
        {"message": []},
    ],
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    """In the words of the model."""
    with pytest.raises(InvalidInput):
        alike(json.dumps(FULL | wrong).encode(), StatusChange.from_json)


def test_nothing_of_its_url_is_shown() -> None:
    """It may hold a token."""
    assert "hook" not in repr(status_change(json.dumps(FULL).encode()))
