"""The code and the examples in docs/customers.md are right; the receivers it shows are started by tests/acceptance."""

import asyncio
import hashlib
import hmac
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from dispatcher.model import Status, StatusChange, encode_json
from dispatcher.rules.backoff import Backoff
from dispatcher.rules.callback import Claimed
from dispatcher.rules.dialects import Signing, dialects
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import MAX_ANSWER_BYTES, Answer
from dispatcher.sending.sender import ANSWER_BYTES, Sender
from dispatcher.signing import TOLERANCE_SECONDS, key_of, new_secret, verify, webhook_headers
from dispatcher.store.key_rotation import MAX_LIVE_SECRETS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "customers.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.M | re.S)

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRET = new_secret(KEY)
BODY = '{"eventType":"MESSAGE_SENT","message":{"src":"Zürich","cost":0.10}}'.encode()
SIGNED_HEADERS = ["webhook-id", "webhook-timestamp", "webhook-signature"]
DEADLINE_SECONDS = 60
EXAMPLE_SECONDS = 1_781_010_298


def code(language: str, *words: str) -> str:
    """The document's only block of a language with these words in it."""
    [found] = [block for name, block in BLOCKS if name == language and all(word in block for word in words)]
    return found


def signed(*keys: bytes, age: int = 0, event_id: str = "event-1", body: bytes = BODY) -> dict[str, str]:
    """Headers of a callback that was signed with these keys, or KEY, `age` seconds ago."""
    return webhook_headers(keys or [KEY], event_id, int(time.time()) - age, body)


# The examples of callbacks.


def example(event: str) -> tuple[str, dict[str, str], bytes]:
    """Request line, headers and body of the example with this event."""
    head, _, body = code("http", event).partition("\n\n")
    line, _, fields = head.partition("\n")
    return line, dict(message_from_string(fields).items()), body.removesuffix("\n").encode()


def example_secret() -> str:
    """The secret the examples are signed with."""
    found = re.search(r"`(whsec_[^`…]+=)`", TEXT)
    assert found
    return found.group(1)


class Kept:
    """In place of the transport: keeps what is to be sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Mapping[str, str], bytes]] = []

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, _workspace: str, **_options: object
    ) -> Answer:
        """Answers 200."""
        self.requests.append((url, headers, body))
        return Answer(200)


@pytest.mark.parametrize(
    ("dialect", "event"), [("zeckta", "MESSAGE_DELIVERED"), ("sendexa", "sms.delivered")]
)
def test_the_example_is_what_is_sent(dialect: str, event: str) -> None:
    """Each example is, header by header and byte for byte, the request that is made for such a status change."""
    line, headers, body = example(event)
    event_id = headers["webhook-id"]
    change = StatusChange.from_dict(
        {
            "eventId": event_id,
            "workspace": "acme",
            "status": "DELIVERED",
            "timestamp": "2026-06-09T13:04:57.487133482Z",
            "message": {
                "uuid": "0b9d8a52-1f0e-4f5c-8f0a-7c2d5e6f7a81",
                "src": "ACME",
                "dest": "+233202007745",
                "segments": 1,
                "units": 1,
                "attempts": 1,
                "cost": "0.05",
                "currency": "GHS",
                "network": "MTN",
            },
        }
    )
    url = "https://customer.example/callbacks"
    rendered = encode_json(dialects()[dialect].body(change, event, 0))
    callback = Claimed(event_id, 1, 1, 2**53, event, "DELIVERED", "m", url, rendered)
    workspace = Workspace("acme", dialect, url, (Secret(example_secret(), 0),), 0, "r")
    kept = Kept()
    sender = Sender(kept, headers["User-Agent"])
    asyncio.run(sender.send(callback, workspace, EXAMPLE_SECONDS * 1000))

    [(sent_url, sent_headers, sent_body)] = kept.requests
    assert "POST /callbacks HTTP/1.1" == line
    framing = {"Host": "customer.example", "Content-Length": str(len(body))}  # the transport's
    assert headers == framing | dict(sent_headers)
    assert [url, body] == [sent_url, sent_body]


@pytest.mark.parametrize("event", ["MESSAGE_DELIVERED", "sms.delivered"])
def test_the_example_verifies(event: str) -> None:
    """Readers who try their code on an example, with the secret and the time beside it, see it verify."""
    _, headers, body = example(event)
    assert f"time {EXAMPLE_SECONDS}." in TEXT
    verified = verify(headers, body, example_secret(), now=EXAMPLE_SECONDS)
    assert json.loads(body, parse_float=Decimal) == verified


def test_every_event_is_named() -> None:
    """The document names every event of all platforms, and no other."""
    changes = [change(status, channel) for status in Status for channel in ("SMS", "RCS", "WHATSAPP")]
    events = {dialect.event_type(one) for dialect in dialects().values() for one in changes}
    named = r"`(MESSAGE_[A-Z]+|(?:sms|message)\.[a-z]+|STATUS_UPDATE|DELIVERY|READ)`"
    assert events - {None} == set(re.findall(named, TEXT))


def change(status: Status, channel: str) -> StatusChange:
    """A status change with nothing but the required fields, and its channel."""
    message = {"uuid": "m-1", "src": "ACME", "dest": "+233202007745", "channel": channel}
    fields = {"workspace": "acme", "status": status.value, "timestamp": "2026-06-09T13:04:57Z"}
    return StatusChange.from_dict({**fields, "message": message})


# The code.


@pytest.mark.parametrize(
    ("language", "file"),
    [
        ("python", "fastapi/receiver.py"),
        ("js", "express/receiver.js"),
        ("go", "go/receiver.go"),
        ("java", "java/Receiver.java"),
        ("php", "php/receiver.php"),
        ("ruby", "ruby/receiver.rb"),
    ],
)
def test_the_code_is_that_of_the_receivers(language: str, file: str) -> None:
    """What the document shows of a receiver is in the receiver, word for word, which tests start."""
    text = (ROOT / "examples" / "receivers" / file).read_text()
    shown = [block for name, block in BLOCKS if name == language and block in text]
    assert 1 == len(shown), f"docs/customers.md does not show a part of examples/receivers/{file}"
    assert "v1," in shown[0]  # it is what verifies


def test_python_is_shown_whole() -> None:
    """The document has all of FastAPI's receiver."""
    assert (ROOT / "examples/receivers/fastapi/receiver.py").read_text() == code("python", "FastAPI")


def good() -> list[dict[str, str]]:
    """Headers that verify."""
    return [signed(), signed(KEY, OTHER_KEY), signed(OTHER_KEY, KEY), signed(age=240), signed(age=-240)]


def bad() -> list[dict[str, str]]:
    """Headers that do not."""
    return [
        signed(OTHER_KEY),
        signed(age=360),
        signed(age=-360),
        signed(body=BODY + b" "),
        *({key: value for key, value in signed().items() if key != name} for name in SIGNED_HEADERS),
        signed() | {"webhook-id": "event-2"},
        *(signed() | {"webhook-timestamp": value} for value in ("now", "9" * 30)),
        *(
            signed() | {"webhook-signature": value}
            for value in ("v1", "v1,", "v1,A", "v1,AAAA v2,AAAA", "v1,Ã¼")
        ),
    ]


EXPECTED = [json.loads(BODY)] * len(good()) + [None] * len(bad())


def test_python_with_a_library() -> None:
    """The Python function takes what is signed well, and nothing else."""
    names: dict[str, Any] = {}
    exec(code("python", "from standardwebhooks"), names)
    taken = [names["callback_of"](headers, BODY, SECRET) for headers in good() + bad()]
    assert EXPECTED == taken


def test_node_with_a_library(tmp_path: Path) -> None:
    """The Node.js function takes what is signed well, and nothing else."""
    install_library(tmp_path)
    calls = f"""
        const taken = {json.dumps(good() + bad())}.map((headers) =>
          callbackOf(headers, Buffer.from({json.dumps(BODY.decode())}), {json.dumps(SECRET)}));
        console.log(JSON.stringify(taken));
    """
    (tmp_path / "library.js").write_text(code("js", 'require("standardwebhooks")') + calls)
    done = subprocess.run(
        [tool("node"), "library.js"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert EXPECTED == json.loads(done.stdout)


def install_library(folder: Path) -> None:
    """Installs the npm package of Standard Webhooks; skips the test where that cannot be done."""
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--fetch-retries=0"]
    command = [tool("npm"), "install", "--prefix", str(folder), *options, "standardwebhooks"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=DEADLINE_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm cannot install standardwebhooks here")


def tool(name: str) -> str:
    """The path of a program; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


# Sendexa's X-Signature.


def x_signature(secret: str) -> dict[str, str]:
    """The header as a Sendexa callback has it."""
    return {"X-Signature": "sha256=" + hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()}


@pytest.mark.parametrize(
    ("headers", "body", "secrets", "expected"),
    [
        (x_signature(SECRET), BODY, [SECRET], True),
        (x_signature(SECRET), BODY, [new_secret(OTHER_KEY), SECRET], True),
        (x_signature(SECRET), BODY, [new_secret(OTHER_KEY)], False),
        (x_signature(SECRET), BODY + b" ", [SECRET], False),
        ({"x-signature": x_signature(SECRET)["X-Signature"]}, BODY, [SECRET], True),
        ({"X-SIGNATURE": x_signature(SECRET)["X-Signature"]}, BODY, [SECRET], True),
        ({"X-Sendexa-Signature": x_signature(SECRET)["X-Signature"][7:]}, BODY, [SECRET], True),
        ({"X-Sendexa-Signature": x_signature(SECRET)["X-Signature"][7:]}, BODY + b" ", [SECRET], False),
        ({"X-Sendexa-Signature": ""}, BODY, [SECRET], False),
        ({"X-Signature": "sha256="}, BODY, [SECRET], False),
        ({"X-Signature": "ü"}, BODY, [SECRET], False),
        ({}, BODY, [SECRET], False),
    ],
)
def test_x_signature(headers: dict[str, str], body: bytes, secrets: list[str], expected: bool) -> None:
    """The function takes what one of its secrets signed, and nothing else."""
    names: dict[str, Any] = {}
    exec(code("python", "def verify_x_signature"), names)
    assert expected is names["verify_x_signature"](headers, body, secrets)


def test_x_signature_of_the_example() -> None:
    """The function takes the document's Sendexa example."""
    names: dict[str, Any] = {}
    exec(code("python", "def verify_x_signature"), names)
    _, headers, body = example("sms.delivered")
    assert names["verify_x_signature"](headers, body, [example_secret()])


@pytest.mark.parametrize("dialect", [name for name in dialects() if name.startswith("sendexa")])
def test_x_signature_of_every_shape(dialect: str) -> None:
    """The function takes what each of Sendexa's shapes sends."""
    names: dict[str, Any] = {}
    exec(code("python", "def verify_x_signature"), names)
    headers = dialects()[dialect].headers(Signing("event-1", BODY, [SECRET], EXAMPLE_SECONDS, 1))
    assert names["verify_x_signature"](headers, BODY, [new_secret(OTHER_KEY), SECRET])


def test_bodies_of_other_platforms() -> None:
    """The bodies without a request around them are those on file."""
    golden = Path(__file__).parents[1] / "unit" / "golden"
    files = ("namirial/STATUS_UPDATE.delivered", "qlara/DELIVERY.delivered", "qlara/READ.rcs")
    assert [(golden / f"{name}.json").read_text().strip() for name in files] == code(
        "json", "STATUS_UPDATE"
    ).splitlines()


SHAPES = ("distinct", "plain", "snake", "short", "sdk")


def test_bodies_of_sendexas_other_shapes() -> None:
    """A body of each of Sendexa's other shapes is shown, in the order of the table, and is the one on file."""
    golden = Path(__file__).parents[1] / "unit" / "golden"
    files = [golden / f"sendexa-{shape}" / "EXPIRED.json" for shape in SHAPES]
    assert [file.read_text().strip() for file in files] == code("json", "sms.delivery").splitlines()


def test_the_table_of_sendexas_other_shapes() -> None:
    """What the table says of each shape is what it sends."""
    rows = re.findall(r"^\| `sendexa-(\w+)` \| (.*) \|$", TEXT, re.M)
    shown = {shape: cells.split(" | ") for shape, cells in rows if cells.count(" | ") == 4}
    assert list(SHAPES) == list(shown)
    for shape in SHAPES:
        dialect, (events, without, case, number, headers) = dialects()[f"sendexa-{shape}"], shown[shape]
        silent = [status.value for status in Status if dialect.event_type(change(status, "SMS")) is None]
        usual = [one.value for one in Status if dialects()["sendexa"].event_type(change(one, "SMS")) is None]
        assert without == (", ".join(status for status in silent if status not in usual) or "–")
        expired = change(Status.EXPIRED, "SMS")
        event = dialect.event_type(expired)
        body = dialect.body(expired, str(event), 0)
        assert ("go by `status`" in events) == (body.get("event") in (None, "sms.delivery"))
        fields = body.get("data", body)
        assert ("upper case" if fields["status"].isupper() else "lower case") == case
        assert ("with `+`" if "+233202007745" in fields.values() else "without `+`") == number
        names = dialect.headers(Signing("e", b"", [SECRET], 0, 1))
        assert ("older" if "X-Sendexa-Signature" in names else "as `sendexa`") == headers


def test_every_header_is_named() -> None:
    """The document names every header of every dialect, on the first attempt and on later ones."""
    for dialect in dialects().values():
        names = dialect.headers(Signing("e", b"", [SECRET], 0, 2))
        assert [] == [name for name in names if f"`{name}`" not in TEXT]


def test_a_shape_without_a_time_is_named() -> None:
    """The document says which dialects have no time of the change in their body, and how exact the others' is."""
    sent = StatusChange.from_dict(
        {
            "workspace": "acme",
            "status": "DELIVERED",
            "timestamp": "2026-06-09T13:04:57.9Z",
            "message": {"uuid": "m-1", "src": "ACME", "dest": "+233202007745"},
        }
    )
    times: dict[str, set[str]] = {"exact": set(), "seconds": set(), "none": set()}
    for name, dialect in dialects().items():
        text = encode_json(dialect.body(sent, str(dialect.event_type(sent)), 0)).decode()
        word = "exact" if ":57.9Z" in text else "seconds" if ":57Z" in text else "none"
        times[word].add(name)
    assert ({"sendexa-plain"}, {"namirial", "qlara"}) == (times["none"], times["seconds"])
    assert "| `sendexa-plain` | none |" in TEXT
    assert "| Namirial, Qlara | whole seconds, cut off, in UTC |" in TEXT


LIFE = ("QUEUED", "SUBMITTED", "SENT", "DELIVERED", "READ")


@pytest.mark.parametrize("dialect", ["zeckta", "sendexa", "namirial", "qlara", "sendexa-snake"])
@pytest.mark.parametrize("final", ["DELIVERED", "FAILED", "EXPIRED", "REJECTED"])
def test_the_order_of_callbacks(dialect: str, final: str) -> None:
    """The function keeps the last status, in whatever order callbacks of one second, or of several, come."""
    replaces = ordering()
    for seconds in (("57", "57", "57", "57", "57"), ("57.1", "57.2", "57.2000001", "58", "59")):
        statuses = [one if one != "DELIVERED" else final for one in LIFE if one != "READ" or final == LIFE[3]]
        bodies = [
            called_body(dialect, status, f"2026-06-09T13:04:{second}Z")
            for status, second in zip(statuses, seconds, strict=False)
        ]
        sent = [one for one in bodies if one is not None]
        for order in itertools.permutations(sent):
            known = order[0]
            for new in order[1:]:
                known = new if replaces(*new, *known) else known
            assert sent[-1] == known, order


def ordering() -> Callable[[str, str, str, str], bool]:
    """The document's function."""
    names: dict[str, Any] = {}
    exec(code("python", "def replaces"), names)
    found: Callable[[str, str, str, str], bool] = names["replaces"]
    return found


def called_body(dialect: str, status: str, at: str) -> tuple[str, str] | None:
    """Status and time in a dialect's body, as a customer reads them; None if it has no callback."""
    made = change(Status(status), "RCS").replace(timestamp=at)
    event = dialects()[dialect].event_type(made)
    if event is None:
        return None
    body = dialects()[dialect].body(made, event, 0)
    message = body.get("message", body)
    word = event if dialect == "qlara" else message["status"]
    return word, message.get("statusChangedAt") or body["timestamp"]


def called(dialect: str, status: Status) -> str:
    """What a dialect's callback calls a status, in the words of the document's table; a dash where there is none."""
    channel = "RCS" if status is Status.READ else "SMS"
    change = StatusChange(
        workspace="acme",
        status=status,
        timestamp="2026-06-09T13:04:57Z",
        message={"uuid": "m", "src": "A", "dest": "+1", "channel": channel},
    )
    event = dialects()[dialect].event_type(change)
    if event is None:
        return "–"
    body = dialects()[dialect].body(change, event, 0)
    match dialect:
        case "sendexa":
            return f"`{event}`, `{body['status']}`"
        case "qlara":
            return str(body["statusCode"]) if event == "DELIVERY" else f"event `{event}` (RCS, WhatsApp)"
    return f"`{body['message']['status']}`" + " (RCS only)" * (status is Status.READ)


def test_the_table_of_statuses() -> None:
    """Each status that causes a callback is there, with the words of each platform."""
    found = {
        status.value: [called(one, status) for one in ("zeckta", "sendexa", "namirial", "qlara")]
        for status in Status
    }
    rows = re.findall(r"^\| ([A-Z]+) \| (.*) \|$", TEXT, re.M)
    shown = {status: cells.split(" | ") for status, cells in rows}
    assert {status: cells for status, cells in found.items() if set(cells) != {"–"}} == shown
    assert [status for status in found if status not in shown] == re.findall(
        r"[A-Z]{4,}", next(line for line in TEXT.splitlines() if line.endswith(" cause none."))
    )


def test_every_block_is_run() -> None:
    """No block is in the document that these tests do not know."""
    assert [
        "go",
        "http",
        "http",
        "java",
        "js",
        "js",
        "js",
        "json",
        "json",
        "php",
        *["python"] * 5,
        "ruby",
    ] == sorted(name for name, _ in BLOCKS)


def test_the_example_secret_has_the_form_of_a_real_one() -> None:
    """The secret beside the examples holds 32 bytes, as ours do."""
    assert 32 == len(key_of(example_secret()))


def test_the_numbers_are_the_defaults() -> None:
    """The waits, limits and times the document states are those of the settings' defaults."""
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    assert [15, 4 * 60, 64 * 60, 17 * 3600 + 4 * 60] == [
        Backoff().delay_ms(number, 0.5) / 1000 for number in (1, 2, 3, 4)
    ]
    stated = {
        "max_attempts": 5,
        "backoff_base_seconds": 15,
        "backoff_factor": 16,
        "backoff_jitter": 0.1,
        "expiry_seconds": 48 * 3600,
        "request_timeout_seconds": 10,
        "retry_after_max_seconds": 3600,
        "max_concurrency": 20,
        "secret_grace_seconds": 24 * 3600,
    }
    assert stated == {name: settings[name] for name in stated}
    assert (16 * 1024, 256, 300, 3) == (
        MAX_ANSWER_BYTES,
        ANSWER_BYTES,
        TOLERANCE_SECONDS,
        MAX_LIVE_SECRETS,
    )
