"""How each platform's callback looks."""

import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dispatcher.rules.dialects
from dispatcher.model import Status, StatusChange, encode_json
from dispatcher.rules.dialects import Signing, dialects, platform_of

GOLDEN = Path(__file__).parent / "golden"

NOW_MS = 1_781_010_300_123
"""2026-06-09T13:05:00.123Z"""

EVENT_TYPES: dict[str, dict[str, str | None]] = {
    "SCHEDULED": {"zeckta": None, "sendexa": None, "namirial": None, "qlara": None},
    "QUEUED": {"zeckta": None, "sendexa": "sms.queued", "namirial": None, "qlara": None},
    "PROCESSING": {"zeckta": None, "sendexa": None, "namirial": None, "qlara": None},
    "SUBMITTED": {"zeckta": "MESSAGE_SUBMITTED", "sendexa": None, "namirial": None, "qlara": None},
    "SENT": {"zeckta": "MESSAGE_SENT", "sendexa": "sms.sent", "namirial": "STATUS_UPDATE", "qlara": None},
    "BUFFERED": {"zeckta": None, "sendexa": None, "namirial": None, "qlara": None},
    "DELIVERED": {
        "zeckta": "MESSAGE_DELIVERED",
        "sendexa": "sms.delivered",
        "namirial": "STATUS_UPDATE",
        "qlara": "DELIVERY",
    },
    "READ": {"zeckta": None, "sendexa": None, "namirial": None, "qlara": None},
    "FAILED": {
        "zeckta": "MESSAGE_FAILED",
        "sendexa": "sms.failed",
        "namirial": "STATUS_UPDATE",
        "qlara": "DELIVERY",
    },
    "UNDELIVERABLE": {
        "zeckta": "MESSAGE_UNDELIVERABLE",
        "sendexa": "sms.failed",
        "namirial": "STATUS_UPDATE",
        "qlara": "DELIVERY",
    },
    "EXPIRED": {
        "zeckta": "MESSAGE_EXPIRED",
        "sendexa": "sms.failed",
        "namirial": "STATUS_UPDATE",
        "qlara": "DELIVERY",
    },
    "REJECTED": {
        "zeckta": "MESSAGE_REJECTED",
        "sendexa": "sms.failed",
        "namirial": "STATUS_UPDATE",
        "qlara": "DELIVERY",
    },
    "UNKNOWN": {"zeckta": None, "sendexa": None, "namirial": None, "qlara": None},
}
"""Which status of an SMS calls back, as the platforms document it."""


def status_change(status: str, error: dict[str, str] | None = None, **message: Any) -> StatusChange:
    """A status change that says all there is to say about its message."""
    return StatusChange.from_dict(
        {
            "eventId": "6f1c2f0e-5a6b-4a54-9d3e-0a4d2f0c9b11",
            "workspace": "acme",
            "status": status,
            "timestamp": "2026-06-09T13:04:57.487133482Z",
            "callbackUrl": "https://example.com",
            "ttlSeconds": 60,
            "message": {
                "uuid": "0b9d8a52-1f0e-4f5c-8f0a-7c2d5e6f7a81",
                "src": "ZECKTA",
                "dest": "+233202007745",
                "segments": 1,
                "units": 2,
                "attempts": 1,
                "cost": "0.05",
                "currency": "GHS",
                "campaignId": "c-1",
                "customerMessageId": "cm-1",
                "network": "MTN",
                "part": 1,
                "totalParts": 1,
                "acceptedAt": "2026-06-09T13:04:50Z",
                "webhookConfigurationId": "w-1",
                "reference": {"service": "otp"},
                "provider": {"name": "carrier"},
                **message,
            },
            "error": error,
        }
    )


def bare(status: str) -> StatusChange:
    """A status change with nothing but the required fields."""
    message = {"uuid": "m-1", "src": "ZECKTA", "dest": "+233202007745"}
    fields = {"eventId": "e-1", "workspace": "acme", "status": status, "timestamp": "2026-06-09T13:04:57Z"}
    return StatusChange.from_dict({**fields, "message": message})


def body(dialect: str, change: StatusChange) -> bytes:
    event_type = dialects()[dialect].event_type(change)
    assert event_type is not None
    return encode_json(dialects()[dialect].body(change, event_type, NOW_MS))


def test_the_table_has_every_status() -> None:
    """No canonical status is missing from the table of these tests."""
    assert set(EVENT_TYPES) == set(Status)


@pytest.mark.parametrize("dialect", sorted(dialects()))
@pytest.mark.parametrize("status", EVENT_TYPES)
def test_types_fit_the_ledger(status: str, dialect: str) -> None:
    """What an entry is about has no other blanks than those between its four parts."""
    change = status_change(status)
    event_type = dialects()[dialect].event_type(change)
    if event_type is None:
        return
    about = f"{change.digest()} {event_type} {status} {NOW_MS}"
    assert 4 == len(about.split(" "))


@pytest.mark.parametrize("dialect", ["zeckta", "sendexa", "namirial", "qlara"])
@pytest.mark.parametrize("status", EVENT_TYPES)
def test_event_types(status: str, dialect: str) -> None:
    """Each canonical status is the platform's event, or none."""
    assert EVENT_TYPES[status][dialect] == dialects()[dialect].event_type(status_change(status))


@pytest.mark.parametrize(
    ("file", "status"),
    [
        ("zeckta/MESSAGE_SUBMITTED", "SUBMITTED"),
        ("zeckta/MESSAGE_SENT", "SENT"),
        ("zeckta/MESSAGE_DELIVERED", "DELIVERED"),
        ("zeckta/MESSAGE_FAILED", "FAILED"),
        ("zeckta/MESSAGE_UNDELIVERABLE", "UNDELIVERABLE"),
        ("zeckta/MESSAGE_EXPIRED", "EXPIRED"),
        ("zeckta/MESSAGE_REJECTED", "REJECTED"),
        ("sendexa/sms.queued", "QUEUED"),
        ("sendexa/sms.sent", "SENT"),
        ("sendexa/sms.delivered", "DELIVERED"),
        ("sendexa/sms.failed", "FAILED"),
        ("sendexa/sms.failed.undeliverable", "UNDELIVERABLE"),
        ("sendexa/sms.failed.expired", "EXPIRED"),
        ("sendexa/sms.failed.rejected", "REJECTED"),
        ("namirial/STATUS_UPDATE.sent", "SENT"),
        ("namirial/STATUS_UPDATE.delivered", "DELIVERED"),
        ("namirial/STATUS_UPDATE.failed", "FAILED"),
        ("namirial/STATUS_UPDATE.undeliverable", "UNDELIVERABLE"),
        ("namirial/STATUS_UPDATE.expired", "EXPIRED"),
        ("namirial/STATUS_UPDATE.rejected", "REJECTED"),
        ("qlara/DELIVERY.delivered", "DELIVERED"),
        ("qlara/DELIVERY.failed", "FAILED"),
        ("qlara/DELIVERY.undeliverable", "UNDELIVERABLE"),
        ("qlara/DELIVERY.expired", "EXPIRED"),
        ("qlara/DELIVERY.rejected", "REJECTED"),
    ],
)
def test_golden_bodies(file: str, status: str) -> None:
    """Each callback's body is, byte for byte, the one on file."""
    expected = (GOLDEN / f"{file}.json").read_bytes()
    assert expected == body(file.partition("/")[0], status_change(status)) + b"\n"


@pytest.mark.parametrize(
    ("dialect", "channel"), [("namirial", "RCS"), ("qlara", "RCS"), ("qlara", "WHATSAPP")]
)
def test_golden_read(dialect: str, channel: str) -> None:
    """READ is told where its channel has it, and for an SMS it is not."""
    expected = (GOLDEN / dialect / f"READ.{channel.lower()}.json").read_bytes()
    assert expected == body(dialect, status_change("READ", channel=channel)) + b"\n"


def test_namirial_reads_only_rcs() -> None:
    """Namirial knows READ for RCS alone."""
    assert None is dialects()["namirial"].event_type(status_change("READ", channel="WHATSAPP"))


def test_namirial_leaves_out_what_it_does_not_know() -> None:
    """A notification of the required fields has no null; its configuration is the message's, always the same."""
    found = json.loads(body("namirial", bare("SENT")))
    configuration = found.pop("webhookConfigurationId")
    assert configuration == json.loads(body("namirial", bare("DELIVERED")))["webhookConfigurationId"]
    expected = {
        "id": "e-1",
        "type": "STATUS_UPDATE",
        "createdAt": "2026-06-09T13:05:00Z",
        "message": {
            "id": "m-1",
            "statusChangedAt": "2026-06-09T13:04:57Z",
            "reference": {},
            "channel": "SMS",
            "status": "SENT",
        },
    }
    assert expected == found


def test_namirial_passes_the_error_on() -> None:
    """An error stands in `provider`, unless the provider says its own."""
    change = status_change("FAILED", {"code": "8", "message": "wrong destination"}, provider={"name": "P1"})
    provider = json.loads(body("namirial", change))["message"]["provider"]
    assert {"name": "P1", "code": "8", "message": "wrong destination"} == provider


def test_qlara_leaves_out_what_it_does_not_know() -> None:
    """A callback of the required fields has no null, and no part where the message has none."""
    expected = {
        "eventType": "DELIVERY",
        "messageId": "m-1",
        "destination": "+233202007745",
        "statusCode": 3,
        "description": "Message delivered",
        "channel": "SMS",
        "timestamp": "2026-06-09T13:04:57Z",
    }
    assert expected == json.loads(body("qlara", bare("DELIVERED")))


def test_qlara_describes_the_error() -> None:
    """The error's message is the description."""
    change = status_change("FAILED", {"code": "1", "message": "Number ported out"})
    assert "Number ported out" == json.loads(body("qlara", change))["description"]


def test_zeckta_leaves_out_what_it_does_not_know() -> None:
    """A Zeckta callback of the required fields has no null in it."""
    expected = {
        "eventId": "e-1",
        "eventType": "MESSAGE_SENT",
        "timestamp": "2026-06-09T13:04:57Z",
        "message": {"uuid": "m-1", "src": "ZECKTA", "dest": "+233202007745", "status": "SENT"},
    }
    assert expected == json.loads(body("zeckta", bare("SENT")))


@pytest.mark.parametrize(
    ("status", "more"),
    [
        ("QUEUED", {"event": "sms.queued", "status": "queued"}),
        ("SENT", {"event": "sms.sent", "status": "sent"}),
        (
            "DELIVERED",
            {"event": "sms.delivered", "status": "delivered", "deliveredAt": "2026-06-09T13:04:57Z"},
        ),
        (
            "EXPIRED",
            {
                "event": "sms.failed",
                "status": "expired",
                "error": {"code": "E004", "message": "Message expired"},
            },
        ),
    ],
)
def test_sendexa_leaves_out_what_it_does_not_know(status: str, more: dict[str, Any]) -> None:
    """A Sendexa callback of the required fields has no null in it."""
    expected = {
        "messageId": "m-1",
        "to": "233202007745",
        "from": "ZECKTA",
        "timestamp": "2026-06-09T13:04:57Z",
    }
    assert expected | more == json.loads(body("sendexa", bare(status)))


@pytest.mark.parametrize(
    "error", [{"code": "E006", "message": "On the do-not-disturb list"}, {"code": "E003"}]
)
@pytest.mark.parametrize("status", ["FAILED", "UNDELIVERABLE", "EXPIRED", "REJECTED"])
def test_sendexa_passes_the_error_on(status: str, error: dict[str, str]) -> None:
    """An error the backend gave takes the place of the one that fits the status."""
    assert error == json.loads(body("sendexa", status_change(status, error)))["error"]


@pytest.mark.parametrize("status", ["QUEUED", "SENT", "DELIVERED"])
def test_only_failures_carry_an_error(status: str) -> None:
    """An error has no place in Sendexa's other events."""
    assert "error" not in json.loads(body("sendexa", status_change(status, {"code": "E005"})))


@pytest.mark.parametrize(
    ("dialect", "change"),
    [
        ("zeckta", status_change("DELIVERED", src="Zürich 📨")),
        ("sendexa", status_change("DELIVERED", src="Zürich 📨")),
        ("namirial", status_change("DELIVERED", reference={"service": "Zürich 📨", "key": "1"})),
        ("qlara", status_change("FAILED", {"code": "1", "message": "Zürich 📨"})),
    ],
    ids=["zeckta", "sendexa", "namirial", "qlara"],
)
def test_bodies_are_compact_utf8(dialect: str, change: StatusChange) -> None:
    """Letters beyond ASCII go out as UTF-8, not as escapes, and no blank stands between values."""
    raw = body(dialect, change)
    assert '"Zürich 📨",'.encode() in raw
    assert raw.decode() == json.dumps(json.loads(raw), ensure_ascii=False, separators=(",", ":"))


VARIANTS = {
    "sendexa-distinct": ("sms.delivered", "sms.failed", "sms.expired"),
    "sendexa-plain": ("sms.delivered", "sms.failed", "sms.failed"),
    "sendexa-snake": ("sms.delivered", "sms.failed", "sms.failed"),
    "sendexa-short": ("sms.delivery", "sms.delivery", "sms.delivery"),
    "sendexa-sdk": ("message.delivered", "message.failed", "message.failed"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_variants(variant: str) -> None:
    """Each of Sendexa's other shapes is the one on file, for a delivered, a failed and an expired message."""
    for status, event in zip(("DELIVERED", "FAILED", "EXPIRED"), VARIANTS[variant], strict=True):
        change = status_change(status)
        assert event == dialects()[variant].event_type(change)
        expected = (GOLDEN / variant / f"{status}.json").read_bytes()
        assert expected == body(variant, change) + b"\n"


def test_every_variant_is_tested() -> None:
    """No variant is without a golden file."""
    assert set(VARIANTS) == {name for name in dialects() if "-" in name}


@pytest.mark.parametrize("variant", ["sendexa-snake", "sendexa-sdk"])
def test_older_shapes_have_no_queued(variant: str) -> None:
    """The older pages list sent, delivered and failed."""
    assert None is dialects()[variant].event_type(status_change("QUEUED"))


def test_older_headers() -> None:
    """The older pages' signature is the bare HMAC; delivery id and attempt come with retries, the id always the same."""
    headers = dialects()["sendexa-sdk"].headers
    digest = hmac.new(SIGNING.secrets[0].encode(), SIGNING.body, hashlib.sha256).hexdigest()
    first, third = headers(msgspec.structs.replace(SIGNING, attempt=1)), headers(SIGNING)
    assert {"X-Sendexa-Signature": digest} == first
    assert (
        first | {"X-Sendexa-Delivery-ID": "del_2428d3a27fbaa13f", "X-Sendexa-Delivery-Attempt": "3"} == third
    )


SIGNING = Signing(
    event_id="event-1",
    body='{"event":"sms.sent","from":"Zürich"}'.encode(),
    secrets=("whsec_b2xkZXN0IHNlY3JldCBvZiAyNCBi", "whsec_bmV3ZXN0IHNlY3JldCBvZiAyNCBi"),
    timestamp=1_781_010_297,
    attempt=3,
)


@pytest.mark.parametrize("dialect", ["zeckta", "namirial", "qlara"])
def test_no_headers_of_its_own(dialect: str) -> None:
    """The platform documents no header, so none is sent beside those of Standard Webhooks."""
    assert {} == dialects()[dialect].headers(SIGNING)


def test_sendexa_signs_with_the_oldest_secret() -> None:
    """X-Signature is the HMAC of the raw body under the text of the oldest live secret, as in Sendexa's SDKs."""
    digest = hmac.new(b"whsec_b2xkZXN0IHNlY3JldCBvZiAyNCBi", SIGNING.body, hashlib.sha256).hexdigest()
    expected = {
        "X-Signature": f"sha256={digest}",
        "X-Signature-Version": "1",
        "X-Webhook-ID": "event-1",
        "X-Timestamp": "2026-06-09T13:04:57.000Z",
        "X-Attempt": "3",
    }
    assert expected == dialects()["sendexa"].headers(SIGNING)


@pytest.fixture
def looked_up_anew() -> Iterator[None]:
    """Has `dialects()` look into the package again, before and after."""
    dialects.cache_clear()
    yield
    dialects.cache_clear()
    sys.modules.pop("dispatcher.rules.dialects.carrierpigeon", None)
    vars(dispatcher.rules.dialects).pop("carrierpigeon", None)


def test_dialects_are_the_modules_of_the_package() -> None:
    """Every file of the package is a dialect, and nothing else is."""
    folder = Path(dispatcher.rules.dialects.__file__).parent
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert files == {platform_of(name) for name in dialects()}
    assert files == {name for name in dialects() if "-" not in name}
    assert {"sendexa", "zeckta"} <= files


@pytest.mark.usefixtures("looked_up_anew")
def test_a_new_file_is_a_new_dialect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dialect is added by adding its file; nothing has to be registered."""
    (tmp_path / "carrierpigeon.py").write_text(
        "def headers(signing):\n    return {'X-Pigeon': signing.event_id}\n"
    )
    monkeypatch.setattr(
        dispatcher.rules.dialects, "__path__", [*dispatcher.rules.dialects.__path__, str(tmp_path)]
    )
    assert {"carrierpigeon", "sendexa", "zeckta"} <= set(dialects())
    assert {"X-Pigeon": "event-1"} == dialects()["carrierpigeon"].headers(SIGNING)
