"""Which attempts are spans, what is in them, and what the receiver gets."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from dispatcher.model import Status
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.subscription import Secret, Subscription
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.open_telemetry import OpenTelemetry
from dispatcher.sending.sender import Sender
from dispatcher.sending.spans import SpanSender, is_sampled
from tests.redis.test_costs import python_calls

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
SECRET = (Secret("whsec_" + "a" * 32, 0),)
NOW = 1_781_010_297_487


class Posts:
    """In place of the transport: keeps what is sent and answers as told."""

    def __init__(self, answer: Answer | Failure | Exception) -> None:
        self.answer = answer
        self.headers: list[Mapping[str, str]] = []

    async def post(
        self, _url: str, headers: Mapping[str, str], _body: bytes, _of: str, **_options: object
    ) -> Answer | Failure:
        """The answer."""
        self.headers.append(headers)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Scene:
    """A sender with spans that are kept in memory."""

    def __init__(self, share: float = 0.0, answer: Answer | Failure | Exception = Answer(200)) -> None:  # noqa: B008
        self.kept = InMemorySpanExporter()
        self.posts = Posts(answer)
        tracer = OpenTelemetry(SimpleSpanProcessor(self.kept), Resource({}))
        self.sender: Sender = SpanSender(self.posts, "ours", tracer, share, lambda: 0.5)

    def send(self, trace: tuple[str, ...] = (), **fields: Any) -> Attempt:
        """One attempt to acme."""
        return asyncio.run(self.attempt(trace, **fields))

    def attempt(self, trace: tuple[str, ...] = (), **fields: Any) -> Coroutine[Any, Any, Attempt]:
        """One attempt, not begun."""
        subscriptions = {"crm": Subscription("crm", "zeckta", "https://crm.example/", SECRET, 0)}
        acme = Workspace("acme", "zeckta", "https://a.example/", SECRET, 0, "r1", subscriptions=subscriptions)
        given = {"event_id": "e1", "attempt": 1, "url": "https://a.example/h", "body": b"{}"} | fields
        workspace = given.pop("workspace", acme)
        callback = Claimed(
            claim=1,
            expires_ms=2**53,
            event_type="sent",
            status=Status.SENT,
            message_uuid="m1",
            trace=trace,
            **given,
        )
        return self.sender.send(callback, workspace, NOW)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Those that have ended."""
        return self.kept.get_finished_spans()

    @property
    def sent_trace(self) -> list[tuple[str | None, str | None]]:
        """Traceparent and tracestate of each request."""
        return [(one.get("traceparent"), one.get("tracestate")) for one in self.posts.headers]


@pytest.mark.parametrize(
    ("trace", "share", "is_span"),
    [
        ((), 0.0, False),
        ((), 0.5, False),
        ((), 0.51, True),
        ((), 1.0, True),
        ((SAMPLED,), 0.0, True),
        ((SAMPLED,), 1.0, True),
        ((UNSAMPLED,), 0.0, False),
        ((UNSAMPLED,), 1.0, False),
    ],
)
def test_which(trace: tuple[str, ...], share: float, is_span: bool) -> None:
    """A status change with a trace decides itself; without one the share does. What is no span passes its trace on as it came."""
    scene = Scene(share)
    assert scene.send(trace) == Attempt(NOW, 0, 200)
    assert is_span == len(scene.spans)
    if not is_span:
        assert [(trace[0] if trace else None, None)] == scene.sent_trace


@pytest.mark.parametrize("trace", [(), (UNSAMPLED,)])
def test_no_span_costs_next_to_nothing(trace: tuple[str, ...]) -> None:
    """Whether an attempt is a span is decided by four calls at most, before anything is made."""
    with_spans, without = Scene(0.1), Scene()
    without.sender = Sender(without.posts, "ours")

    def calls(scene: Scene) -> int:
        def send() -> None:
            with pytest.raises(StopIteration):
                scene.attempt(trace).send(None)

        return python_calls(send)

    assert 1 <= calls(with_spans) - calls(without) <= 4
    assert () == with_spans.spans


@pytest.mark.parametrize(
    ("flags", "says"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True), ("fe", False)]
)
def test_the_flag(flags: str, says: bool) -> None:
    """Of the eight bits the lowest counts."""
    assert says is is_sampled(f"00-{TRACE}-{PARENT}-{flags}")


def test_a_child() -> None:
    """Its parent is the span of the status change; the receiver's parent is the attempt's span; the tracestate is kept."""
    scene = Scene()
    scene.send((SAMPLED, STATE))
    [span] = scene.spans
    assert span.parent
    assert (TRACE, PARENT) == (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}")
    assert span.parent.is_remote
    assert span.context
    assert TRACE == f"{span.context.trace_id:032x}"
    assert STATE == span.context.trace_state.to_header()
    assert [(f"00-{TRACE}-{span.context.span_id:016x}-01", STATE)] == scene.sent_trace
    assert PARENT != f"{span.context.span_id:016x}"


def test_a_trace_of_its_own() -> None:
    """Without a trace the span is the first of one, which the receiver can continue."""
    scene = Scene(1.0)
    scene.send()
    scene.send()
    one, other = (span.context for span in scene.spans)
    assert one
    assert other
    assert [None, None] == [span.parent for span in scene.spans]
    assert one.trace_id != other.trace_id
    assert [f"00-{of.trace_id:032x}-{of.span_id:016x}-" for of in (one, other)] == [
        str(parent)[:-2] for parent, _ in scene.sent_trace
    ]
    assert all(is_sampled(str(parent)) for parent, _ in scene.sent_trace)


def test_what_is_in_it() -> None:
    """Names of the semantic conventions; ours under `dispatcher.`; neither path, query, body nor secret."""
    scene = Scene(answer=Answer(503))
    url = "https://hooks.example:8443/k/s3cr3t?token=hush"
    scene.send((SAMPLED,), event_id="e1.crm", attempt=3, url=url, body=b'{"dest":"+233200000001"}')
    [span] = scene.spans
    assert ("POST", SpanKind.CLIENT, StatusCode.ERROR) == (span.name, span.kind, span.status.status_code)
    assert {
        "http.request.method": "POST",
        "http.request.resend_count": 2,
        "http.response.status_code": 503,
        "server.address": "hooks.example",
        "server.port": 8443,
        "url.full": "https://hooks.example:8443",
        "error.type": "http_503",
        "dispatcher.workspace": "acme",
        "dispatcher.subscription": "crm",
        "dispatcher.event_id": "e1",
        "dispatcher.attempt": 3,
    } == span.attributes
    assert not [secret for secret in ("s3cr3t", "hush", "+233", "whsec") if secret in span.to_json()]
    assert span.start_time
    assert span.end_time
    assert span.start_time <= span.end_time


def test_what_a_first_attempt_lacks() -> None:
    """One that was delivered at once has neither an error nor a count of attempts before it."""
    scene = Scene(1.0)
    scene.send(url="http://[2001:db8::1]/x")
    [span] = scene.spans
    assert StatusCode.UNSET == span.status.status_code
    assert span.attributes
    assert not {"error.type", "http.request.resend_count", "dispatcher.subscription"} & set(span.attributes)
    assert ("2001:db8::1", 80) == (span.attributes["server.address"], span.attributes["server.port"])


@pytest.mark.parametrize(
    ("answer", "fields", "error"),
    [
        (NoAnswer("connect", "refused by 10.0.0.1"), {}, "connect"),
        (InternalError("a header holds a line end"), {}, "internal_error"),
        (Answer(200), {"body": None}, "body_missing"),
        (Answer(200), {"workspace": None}, "workspace_removed"),
        (NoAnswer("blocked_address", "bad"), {"url": "nonsense"}, "blocked_address"),
    ],
)
def test_without_an_answer(answer: Answer | Failure, fields: dict[str, Any], error: str) -> None:
    """The word for what was wrong is the error's type; there is no status."""
    scene = Scene(1.0, answer)
    scene.send(**fields)
    [span] = scene.spans
    assert span.attributes
    assert error == span.attributes["error.type"]
    assert "http.response.status_code" not in span.attributes
    assert StatusCode.ERROR == span.status.status_code
    assert "10.0.0.1" not in span.to_json()


def test_a_bug_of_ours_is_no_span() -> None:
    """What the transport raises goes on to the turn, which logs it; nothing half done is exported."""
    scene = Scene(1.0, RuntimeError("bug"))
    with pytest.raises(RuntimeError, match="bug"):
        scene.send()
    assert () == scene.spans


class Broken:
    """A tracer that cannot start a span, or whose spans cannot end."""

    trace = (SAMPLED,)

    def __init__(self, what: str) -> None:
        self.what = what

    def start(self, *_: object) -> "Broken":
        """A span."""
        if self.what == "start":
            raise RuntimeError("no span")
        return self

    def end(self, _attempt: Attempt) -> None:
        """Fails."""
        raise RuntimeError("no end")

    async def aclose(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(("what", "event"), [("start", "span.not_started"), ("end", "span.not_ended")])
def test_a_broken_span_stops_nothing(what: str, event: str) -> None:
    """The callback is sent, and the attempt counts."""
    posts = Posts(Answer(200))
    scene = Scene()
    scene.sender = SpanSender(posts, "ours", Broken(what), 1.0)
    with capture_logs() as lines:
        assert scene.send() == Attempt(NOW, 0, 200)
    assert [event] == [line["event"] for line in lines]
    assert 1 == len(posts.headers)
