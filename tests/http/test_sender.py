"""The sender: through its own transport, to a real server that keeps what arrived."""

import base64
import email.utils
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher import SignatureInvalid, verify
from dispatcher.errors import InvalidInput
from dispatcher.model import Status
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.attempt_errors import FINAL_ERRORS
from dispatcher.rules.authorization import Basic, Bearer
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import ANSWER_BYTES
from dispatcher.sending.sender import Sender, parse_retry_after
from dispatcher.sending.transport import CallbackTransport
from dispatcher.signing import new_secret
from dispatcher.store.sealing import SecretBox
from tests.http.raw_server import Behaviour, Connection, RawServer, Received, answer, answers, closes, serving

OLD, NEW, OTHER = (new_secret(bytes([n]) * 32) for n in (1, 2, 3))
BODY = '{"eventId":"e-1","src":"Zürich","cost":0.0500}'.encode()
NOW_MS = 1_800_000_000_000

TLS = ssl.create_default_context()
AGENT = "callback-dispatcher/1"
DOWN = "http://127.0.0.1:1/never-reached"


def fresh_ms() -> int:
    """The machine's clock, with which Standard Webhooks' own library compares."""
    return int(time.time() * 1000)


def workspace(*secrets: Secret, dialect: str = "zeckta", problem: str | None = None) -> Workspace:
    return Workspace("acme", dialect, DOWN, secrets or (Secret(OLD, 1),), 1, "r1", problem=problem)


def callback(url: str, *, body: bytes | None = BODY, attempt: int = 1) -> Claimed:
    return Claimed("e-1", 7, attempt, NOW_MS + 60_000, "MESSAGE_SENT", Status.SENT, "m-1", url, body)


@asynccontextmanager
async def sender() -> AsyncIterator[Sender]:
    """A sender that may go to loopback."""
    transport = CallbackTransport(AddressPolicy.of(["127.0.0.0/8"]), 20.0, tls=TLS)
    try:
        yield Sender(transport, AGENT)
    finally:
        await transport.aclose()


async def _send(
    behaviour: Behaviour, sent_by: Workspace | None, now_ms: int, body: bytes | None, attempt: int
) -> tuple[Attempt, RawServer]:
    async with serving(behaviour) as server, sender() as ours:
        result = await ours.send(callback(server.url, body=body, attempt=attempt), sent_by, now_ms)
        return result, server


def send(
    behaviour: Behaviour,
    sent_by: Workspace | None,
    *,
    now_ms: int = NOW_MS,
    body: bytes | None = BODY,
    attempt: int = 1,
) -> tuple[Attempt, RawServer]:
    """One attempt at a server that behaves like this, on the loop a worker runs; and the server."""
    return uvloop.run(_send(behaviour, sent_by, now_ms, body, attempt))


def arrived(sent_by: Workspace, *, now_ms: int = NOW_MS, attempt: int = 1) -> Received:
    """The request as it arrived."""
    _, server = send(answers(answer()), sent_by, now_ms=now_ms, attempt=attempt)
    [received] = server.received
    return received


def attempt_at(content: bytes, *, now_ms: int = NOW_MS) -> Attempt:
    """What an attempt makes of an answer."""
    return send(answers(content), workspace(), now_ms=now_ms)[0]


def headers_of(received: Received) -> dict[str, str]:
    return {name.lower(): value for name, value in received.headers}


# ---- the request


def test_the_request_is_a_json_post() -> None:
    """The body arrives byte for byte, with every header once and none that nobody set."""
    received = arrived(workspace())
    assert received.line == "POST /hook HTTP/1.1"
    assert received.body == BODY
    assert received.values("content-type") == ["application/json"]
    assert received.values("content-length") == [str(len(BODY))]
    assert received.values("user-agent") == [AGENT]
    assert len(received.values("host")) == 1
    assert sorted(headers_of(received)) == sorted(name.lower() for name, _ in received.headers)
    assert set(headers_of(received)) == {
        "accept",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }


@pytest.mark.parametrize("dialect", ["zeckta", "sendexa"])
def test_an_independent_library_verifies_the_signature(dialect: str) -> None:
    """What arrives satisfies Standard Webhooks' own Python library, and `dispatcher.verify`."""
    received = arrived(workspace(Secret(OLD, 1), dialect=dialect), now_ms=fresh_ms())
    assert Webhook(OLD).verify(received.body, headers_of(received))["eventId"] == "e-1"
    assert verify(dict(received.headers), received.body, OLD)["eventId"] == "e-1"


def test_another_secret_or_body_does_not_verify() -> None:
    """The signature is worth something: it fails with another secret, and for one changed byte."""
    received = arrived(workspace(Secret(OLD, 1)), now_ms=fresh_ms())
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(received.body, headers_of(received))
    with pytest.raises(SignatureInvalid):
        verify(headers_of(received), received.body.replace(b"e-1", b"e-2"), OLD)


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_both_secrets_verify_while_one_replaces_the_other(secret: str) -> None:
    """While two secrets live, a receiver that has either of them is satisfied."""
    now_ms = fresh_ms()
    received = arrived(workspace(Secret(OLD, 1, expires_ms=now_ms + 1), Secret(NEW, 2)), now_ms=now_ms)
    Webhook(secret).verify(received.body, headers_of(received))
    verify(headers_of(received), received.body, secret)


def test_a_secret_does_not_sign_once_it_has_expired() -> None:
    """From the millisecond of its end a replaced secret signs nothing."""
    now_ms = fresh_ms()
    received = arrived(workspace(Secret(OLD, 1, expires_ms=now_ms), Secret(NEW, 2)), now_ms=now_ms)
    assert len(received.values("webhook-signature")[0].split()) == 1
    Webhook(NEW).verify(received.body, headers_of(received))
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(received.body, headers_of(received))


def test_each_attempt_is_signed_anew_under_the_same_id() -> None:
    """A later attempt has the same webhook-id and body, and its own timestamp and signature."""
    first, second = (arrived(workspace(), now_ms=NOW_MS + ms, attempt=n) for n, ms in ((1, 0), (2, 15_000)))
    assert first.values("webhook-id") == second.values("webhook-id") == ["e-1"]
    assert first.body == second.body
    assert first.values("webhook-timestamp") == [str(NOW_MS // 1000)]
    assert second.values("webhook-timestamp") == [str(NOW_MS // 1000 + 15)]
    assert first.values("webhook-signature") != second.values("webhook-signature")


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        ((Secret(OLD, 1),), OLD),
        ((Secret(OLD, 1, expires_ms=NOW_MS + 1), Secret(NEW, 2)), OLD),
        ((Secret(OLD, 1, expires_ms=NOW_MS), Secret(NEW, 2)), NEW),
    ],
    ids=["the only one", "the oldest of two", "the only one left"],
)
def test_sendexa_gets_its_own_signature(secrets: tuple[Secret, ...], expected: str) -> None:
    """X-Signature is a plain HMAC over the body, keyed with the text of the oldest live secret."""
    received = arrived(workspace(*secrets, dialect="sendexa"))
    digest = hmac.new(expected.encode(), received.body, hashlib.sha256).hexdigest()
    assert received.values("x-signature") == [f"sha256={digest}"]
    assert received.values("x-signature-version") == ["1"]
    assert received.values("x-webhook-id") == ["e-1"]


@pytest.mark.parametrize("number", [1, 5])
def test_sendexa_is_told_number_and_time_of_the_attempt(number: int) -> None:
    """X-Attempt counts from one; X-Timestamp is the attempt's second in ISO 8601, as in webhook-timestamp."""
    received = arrived(workspace(dialect="sendexa"), attempt=number)
    assert received.values("x-attempt") == [str(number)]
    [stamp] = received.values("x-timestamp")
    assert stamp.endswith("Z")
    assert datetime.fromisoformat(stamp) == datetime.fromtimestamp(NOW_MS // 1000, UTC)


# ---- what becomes of the answer


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_is_a_success(status: int) -> None:
    """A 2xx has no error, and nothing of its body is kept."""
    result = attempt_at(answer(status, b"thanks", "Retry-After: 7"))
    assert result == Attempt(NOW_MS, result.duration_ms, status)


@pytest.mark.parametrize("status", [301, 302, 304, 307, 400, 401, 404, 410, 422, 429, 500, 503, 599])
def test_every_other_status_is_an_error_named_after_it(status: int) -> None:
    """Anything but a 2xx is `http_NNN`, redirects too, and the answer is kept."""
    body = b"" if status == 304 else b"no, thanks"
    result = attempt_at(answer(status, body, f"Location: {DOWN}"))
    assert result == Attempt(NOW_MS, result.duration_ms, status, f"http_{status}", None, body)


@pytest.mark.parametrize(("sent", "kept"), [(0, 0), (255, 255), (256, 256), (257, 256), (1_000_000, 256)])
def test_the_beginning_of_a_failed_answer_is_kept(sent: int, kept: int) -> None:
    """The ledger gets the first 256 bytes of an answer, whole if it is shorter."""
    body = bytes(n % 251 for n in range(sent))
    result = attempt_at(answer(500, body))
    assert result.answer == body[:kept]
    assert len(result.answer) <= ANSWER_BYTES


async def repeats_the_request(connection: Connection) -> None:
    """An error page that shows what it was asked, as JSON whose slashes are escaped."""
    asked = await connection.request()
    shown = json.dumps(dict(reversed(asked.headers))).replace("/", r"\/")
    await connection.send(answer(500, shown.encode()))


@pytest.mark.parametrize(
    ("auth", "own"),
    [
        (Basic("me", "Kl/ar?text>9"), {}),
        (Bearer("a/token/of/some/length"), {}),
        (None, {"X-Api-Key": "s3cr3t-key"}),
        (None, {"X-Api-Key": "pass phrase of words"}),
        (None, {"X-Env": "prod"}),
    ],
    ids=["basic", "bearer", "own", "words", "short"],
)
def test_an_answer_that_repeats_a_secret_is_not_kept(auth: Any, own: dict[str, str]) -> None:
    """What the receiver knows us by is in no answer that is kept, and what is no secret hides none."""

    async def scene() -> Attempt:
        async with serving(repeats_the_request) as server, sender() as ours:
            of = changed(workspace(), callback_url=server.url, auth=auth, headers=own)
            return await ours.send(callback(server.url), of, NOW_MS)

    kept = uvloop.run(scene()).answer
    assert (b"it repeats a header" in kept) == ("X-Env" not in own)
    assert not any(value.encode() in kept.replace(rb"\/", b"/") for value in own.values() if len(value) > 4)


@pytest.mark.parametrize(
    ("shown", "is_kept"),
    [
        ("no such user: Kl/ar?text>9", False),
        ("no such user: Kl/ar?text&gt;9", False),
        ("x" * 250 + "Kl/ar?text>9", False),
        ("x" * 256 + "Kl/ar?text>9", True),
        ("Klar", True),
    ],
)
def test_what_is_kept_shows_no_password(shown: str, is_kept: bool) -> None:
    """A password alone, escaped or cut off at the end of what is kept, too; what is behind that hides nothing."""

    async def scene() -> Attempt:
        async with serving(answers(answer(401, shown.encode()))) as server, sender() as ours:
            of = changed(workspace(), callback_url=server.url, auth=Basic("me", "Kl/ar?text>9"))
            return await ours.send(callback(server.url), of, NOW_MS)

    assert (uvloop.run(scene()).answer == shown.encode()[:ANSWER_BYTES]) == is_kept


def test_a_packed_answer_is_kept_as_it_came() -> None:
    """A failed answer's bytes are not decoded, even if it says that they can be."""
    result = attempt_at(answer(500, b"\x1f\x8bno gzip", "Content-Encoding: gzip"))
    assert (result.error, result.answer) == ("http_500", b"\x1f\x8bno gzip")


def test_an_answer_in_pieces_is_kept_whole() -> None:
    """A chunked answer's 256 bytes are those of its body, not of its chunks."""

    async def in_chunks(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(60):
            await connection.send(b"5\r\nabcde\r\n")
        await connection.send(b"0\r\n\r\n")
        await connection.gone()

    assert send(in_chunks, workspace())[0].answer == (b"abcde" * 60)[:256]


def test_a_connection_that_broke_off_may_have_delivered() -> None:
    """The transport's word for a failure is the attempt's error; there is no status, and why is kept."""
    result, server = send(closes, workspace())
    why = "the connection ended before the answer's head was whole: closed by the other side"
    assert result == Attempt(
        NOW_MS, result.duration_ms, error="maybe_received", answer=why.encode(), detail=why
    )
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "b'SSH-2.0-OpenSSH_9.6'"),
        (b"RTSP/1.0 200 OK\r\n\r\n", "b'RTSP/1.0'"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "b'HTTP/1.1 2000'"),
        (b"\x1b[2J\xff\x00" * 999 + b"\r\n", r"b'\x1b[2J\xff\x00\x1b[2J"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "longer than 65536 bytes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 600, "more than 512 pieces"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_no_answer_says_why(content: bytes, why: str) -> None:
    """The ledger keeps why it is `protocol` in place of an answer: printable, and 256 bytes at most."""
    result = attempt_at(content)
    assert (result.error, result.answer) == ("protocol", result.detail.encode())
    assert why in result.detail
    assert result.detail.isprintable()
    assert len(result.answer) <= ANSWER_BYTES


def test_a_refused_connection_is_an_error() -> None:
    """Where nobody listens the attempt's error is `connect`."""

    async def scene() -> Attempt:
        async with sender() as ours:
            return await ours.send(callback(DOWN), workspace(), NOW_MS)

    result = uvloop.run(scene())
    assert result == Attempt(NOW_MS, result.duration_ms, error="connect", detail=result.detail)
    assert "Connection refused" in result.detail


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[fd00::1]"])
def test_a_blocked_address_is_an_error(host: str) -> None:
    """A URL that leads to a private address ends as `blocked_address`."""

    async def scene() -> Attempt:
        async with sender() as ours:
            return await ours.send(callback(f"http://{host}/"), workspace(), NOW_MS)

    assert uvloop.run(scene()).error == "blocked_address"


@pytest.mark.parametrize("host", ["0177.0.0.1", "999.1.1.1", "xn--a.test"])
def test_a_url_that_cannot_be_sent_to_is_an_error(host: str) -> None:
    """A host that is neither a name nor an address gives the callback up, and raises nothing."""

    async def scene() -> Attempt:
        async with sender() as ours:
            return await ours.send(callback(f"http://{host}/"), workspace(), NOW_MS)

    result = uvloop.run(scene())
    assert result.internal_error is None
    assert result.error in FINAL_ERRORS


# ---- webhook-delivery


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (500, "webhook-delivery: abort", "aborted"),
        (410, "Webhook-Delivery:  Abort ", "aborted"),
        (429, "WEBHOOK-DELIVERY: disable", "disabled"),
        (302, "webhook-delivery: abort, disable", "disabled"),
        (500, "webhook-delivery: abort\r\nWebhook-Delivery: disable", "disabled"),
        (500, "webhook-delivery:", "http_500"),
        (500, "webhook-delivery: aborted", "http_500"),
        (500, "webhook-delivery: pause", "http_500"),
        (500, "x-webhook-delivery: abort", "http_500"),
        (500, "x: webhook-delivery: abort", "http_500"),
        (500, "webhook-delivery: \xff\xfe", "http_500"),
    ],
)
def test_the_receiver_says_that_it_is_over(status: int, header: str, expected: str) -> None:
    """The header `webhook-delivery` of an answer ends the callback, or the subscription; other words mean nothing."""
    result = attempt_at(answer(status, b"why", header))
    assert (result.http_status, result.error, result.answer) == (status, expected, b"why")
    assert (expected in FINAL_ERRORS) == (expected != "http_500")


@pytest.mark.parametrize("word", ["abort", "disable"])
@pytest.mark.parametrize("status", [200, 204])
def test_a_2xx_delivers_whatever_its_headers_say(status: int, word: str) -> None:
    """A 2xx with `webhook-delivery` is a 2xx."""
    result = attempt_at(answer(status, b"", f"webhook-delivery: {word}"))
    assert (result.http_status, result.error) == (status, None)


def test_in_the_body_it_means_nothing() -> None:
    """Only a header counts."""
    assert attempt_at(answer(500, b"\r\nwebhook-delivery: abort\r\n")).error == "http_500"


# ---- Retry-After


def http_date(ms: int) -> str:
    return email.utils.formatdate(ms / 1000, usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7_000), ("0", 0), ("315360000", 315_360_000_000), (" 7 ", 7_000)]
    + [(value, None) for value in ("", "soon", "-1", "1.5", "7, 7", "٧", "Sat, 99 Nov 2026 08:00:00 GMT")],
)
def test_retry_after_in_seconds(status: int, value: str, expected: int | None) -> None:
    """Whole seconds are heeded on 429 and 503, and nonsense is not."""
    content = answer(status, b"", f"Retry-After: {value}")
    assert attempt_at(content).retry_after_ms == expected


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_as_a_date(status: int) -> None:
    """A date counts from the end of the attempt, and one that is over means now."""
    now_ms = 1_800_000_000_000
    later = attempt_at(answer(status, b"", f"Retry-After: {http_date(now_ms + 60_000)}"), now_ms=now_ms)
    assert later.retry_after_ms == 60_000 - later.duration_ms
    over = attempt_at(answer(status, b"", f"Retry-After: {http_date(now_ms - 60_000)}"), now_ms=now_ms)
    assert over.retry_after_ms == 0


@pytest.mark.parametrize("status", [429, 503])
def test_no_retry_after(status: int) -> None:
    """Without the header there is nothing to heed."""
    assert attempt_at(answer(status)).retry_after_ms is None


@pytest.mark.parametrize("status", [200, 302, 400, 404, 410, 500, 502])
def test_retry_after_of_other_statuses(status: int) -> None:
    """Only 429 and 503 may say when to come back."""
    assert attempt_at(answer(status, b"", "Retry-After: 7")).retry_after_ms is None


pieces = st.sampled_from(
    [
        "Sun,",
        "06",
        "Nov",
        "06-Nov-94",
        "1994",
        "0001",
        "08:49:37",
        "24:0",
        "GMT",
        "-0000",
        "+9999",
        "(",
        "\x00",
    ]
)
values = st.text() | st.lists(pieces, max_size=8).map(" ".join)
moments = st.integers(0, 2**45)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(value=values, now_ms=moments)
def test_no_retry_after_is_too_odd(value: str, now_ms: int) -> None:
    """Whatever stands there, the result is nothing or a wait, never an exception or a step back."""
    wait_ms = parse_retry_after(value, now_ms)
    assert wait_ms is None or wait_ms >= 0


@settings(deadline=None, derandomize=True)
@given(seconds=st.integers(0, 10**11), now_ms=moments)
def test_seconds_are_read_as_they_are(seconds: int, now_ms: int) -> None:
    """A number of seconds is that many, whatever the time."""
    assert parse_retry_after(str(seconds), now_ms) == seconds * 1000


@settings(deadline=None, derandomize=True)
@given(at=st.integers(0, 2**40 // 1000), now_ms=moments)
def test_a_date_is_read_as_the_time_until_then(at: int, now_ms: int) -> None:
    """A date of the form that HTTP prefers means the milliseconds until then."""
    assert parse_retry_after(http_date(at * 1000), now_ms) == max(0, at * 1000 - now_ms)


@pytest.fixture
def local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is not UTC."""
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "EST+5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("local_time")
@pytest.mark.parametrize(
    "value",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    ids=["preferred", "RFC 850", "asctime"],
)
def test_all_three_forms_of_a_date_are_utc(value: str) -> None:
    """The three forms of RFC 9110 §5.6.7 name the same moment on a machine in any time zone."""
    assert parse_retry_after(value, 784_111_777_000 - 5_000) == 5_000


# ---- no attempt at all


def test_a_body_that_is_gone_is_not_sent() -> None:
    """Without a body the attempt is `body_missing`, and no connection is made."""
    result, server = send(answers(answer()), workspace(), body=None)
    assert result == Attempt(NOW_MS, 0, error="body_missing")
    assert server.accepted == 0


def test_an_empty_body_is_a_body() -> None:
    """Zero bytes are sent, signed as zero bytes."""
    result, server = send(answers(answer()), workspace(), body=b"")
    assert (result.http_status, server.received[0].values("content-length")) == (200, ["0"])


def test_a_removed_workspace_sends_nothing() -> None:
    """Without a workspace the attempt is `workspace_removed`, and no connection is made."""
    result, server = send(answers(answer()), None)
    assert result == Attempt(NOW_MS, 0, error="workspace_removed")
    assert server.accepted == 0


def sealed_with_a_lost_key() -> str:
    """What SecretBox says of secrets whose key is no longer configured."""
    lost, ours = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    with pytest.raises(InvalidInput) as refused:
        SecretBox([ours]).open(SecretBox([lost]).seal(OLD.encode()))
    return str(refused.value)


def test_unreadable_secrets_are_our_own_fault() -> None:
    """Secrets that cannot be opened cost the customer no attempt, and nothing is sent unsigned."""
    problem = sealed_with_a_lost_key()
    result, server = send(answers(answer()), workspace(problem=problem))
    assert result == Attempt(NOW_MS, 0, internal_error=f"workspace 'acme': {problem}")
    assert server.accepted == 0


@pytest.mark.parametrize("text", ["hunter2", "whsec_hunter2", "whsec_!!hunter2!!", "whsec_" + "aHVudGVyMg=="])
def test_a_malformed_secret_is_our_own_fault_and_stays_secret(text: str) -> None:
    """A secret that cannot be a key is our own fault; what is said about it does not contain it."""
    result, server = send(answers(answer()), workspace(Secret(text, 1)))
    assert result.internal_error is not None
    assert text.removeprefix("whsec_") not in repr(result)
    assert server.accepted == 0


@pytest.mark.parametrize("dialect", ["zeckta", "sendexa"])
@pytest.mark.parametrize("behaviour", [answers(answer(500)), closes], ids=["an answer", "no answer"])
def test_no_secret_shows(behaviour: Behaviour, dialect: str) -> None:
    """Neither the text nor the key of a secret is in what can be printed or is kept."""
    ours = workspace(Secret(OLD, 1, expires_ms=NOW_MS + 1), Secret(NEW, 2), dialect=dialect)
    result, _ = send(behaviour, ours)
    for secret in ours.secrets:
        for hidden in (secret.text.removeprefix("whsec_"), repr(secret.key), secret.key.hex()):
            assert hidden not in repr(result) + repr(ours) + repr(secret)


def test_a_fault_of_ours_costs_no_attempt() -> None:
    """Where the transport is to blame the attempt says so in words, and has neither status nor error."""

    async def scene() -> Attempt:
        async with serving(answers(answer())) as server:
            async with sender() as closed:
                pass
            return await closed.send(callback(server.url), workspace(), NOW_MS)

    result = uvloop.run(scene())
    assert result.internal_error
    assert (result.error, result.http_status) == (None, None)
