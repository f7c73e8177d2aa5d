"""The trace of a status change: which are taken, and the headers they become."""

import base64
from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import Message, Status, StatusChange
from dispatcher.rules.callback import Callback, Claimed
from dispatcher.rules.render import RenderOptions, render
from dispatcher.rules.request_headers import request_headers
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import check_headers
from dispatcher.store.kept_body import divided, first_line, url_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
AT = 1_781_010_297_487


def change(**fields: Any) -> StatusChange:
    """A status change with JSON's names."""
    message = {"uuid": "m1", "src": "ACME", "dest": "+233200000001"}
    given = {"workspace": "acme", "status": "SENT", "timestamp": "2026-06-09T13:04:57Z", "message": message}
    return StatusChange.from_dict(given | fields)


def test_taken() -> None:
    """In JSON and in Python, with and without tracestate; it goes out as JSON again."""
    one = change(traceparent=PARENT, tracestate=STATE)
    assert (one.traceparent, one.tracestate) == (PARENT, STATE)
    assert StatusChange.from_json(one.to_json()) == one
    message = Message(uuid="m1", src="ACME", dest="+1")
    assert (
        StatusChange(
            workspace="acme",
            status=Status.SENT,
            timestamp="2026-06-09T13:04:57Z",
            message=message,
            traceparent=PARENT,
        ).tracestate
        is None
    )
    assert change(traceparent=PARENT, tracestate="a=" + "x" * 510).tracestate
    assert b"trace" not in change().to_json()


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        f"01-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-x",
        f"00-{TRACE}-{SPAN}-01\r\nX: y",
        f"{PARENT}\n",
        f" {PARENT}",
        17,
    ],
)
def test_no_traceparent(parent: object) -> None:
    """What W3C's version 00 does not allow is refused, and named."""
    with pytest.raises(InvalidInput, match=r"^traceparent: must "):
        change(traceparent=parent)


@pytest.mark.parametrize("state", ["", " a=b", "a=b ", "a\nb", "a\tb", "ä=b", "x" * 513, {"a": "b"}])
def test_no_tracestate(state: object) -> None:
    """Printable ASCII of at most 512 characters, as it stands in a header."""
    with pytest.raises(InvalidInput, match=r"^tracestate: must be "):
        change(traceparent=PARENT, tracestate=state)


def test_a_tracestate_alone() -> None:
    """It means nothing without its traceparent."""
    with pytest.raises(InvalidInput, match=r"^tracestate: needs a traceparent$"):
        change(tracestate=STATE)


def test_told_again_in_another_span() -> None:
    """It is the same status change: neither its eventId nor its digest knows of traces."""
    plain, traced = change(), change(traceparent=PARENT, tracestate=STATE)
    other = change(traceparent=f"00-{'a' * 32}-{SPAN}-00")
    assert {plain.digest()} == {traced.digest(), other.digest()}
    assert {plain.event_id} == {traced.event_id, other.event_id}


def sent(traced: StatusChange, **headers: str) -> dict[str, str]:
    """The headers of the callback to a workspace with headers of its own."""
    secret = Secret("whsec_" + base64.b64encode(b"s" * 32).decode(), 0)
    workspace = Workspace("acme", "zeckta", "https://a.example/", (secret,), 0, "r1", headers)
    callback = render(traced, workspace, AT, RenderOptions())
    assert isinstance(callback, Callback)
    url, trace = divided(first_line(callback.url, callback.trace).decode())
    claimed = Claimed(
        callback.event_id,
        1,
        1,
        0,
        callback.event_type,
        callback.status,
        "m1",
        url,
        callback.body,
        trace=trace,
    )
    return request_headers(claimed, callback.body, workspace, AT, "ours")


def test_headers() -> None:
    """They go out behind the others, which stay as they are."""
    plain = sent(change())
    assert not {"traceparent", "tracestate"} & plain.keys()
    assert sent(change(traceparent=PARENT)) == plain | {"traceparent": PARENT}
    assert sent(change(traceparent=PARENT, tracestate=STATE)) == plain | {
        "traceparent": PARENT,
        "tracestate": STATE,
    }


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "Tracestate"])
def test_a_header_that_a_workspace_had_before(name: str) -> None:
    """It stays and wins: a trace is passed on whole, or not at all."""
    found = sent(change(traceparent=PARENT, tracestate=STATE), **{name: "own"})
    assert {one: value for one, value in found.items() if one.lower().startswith("trace")} == {name: "own"}


def test_no_workspace_sets_it_now() -> None:
    """Nobody adds or changes one; a workspace that has one can change other headers, and take it away."""
    with pytest.raises(InvalidInput, match="dispatcher's own"):
        check_headers({"Traceparent": PARENT}, "zeckta")
    before = {"Traceparent": "own", "X-Key": "a"}
    assert check_headers(before | {"X-Key": "b"}, "zeckta", before) == before | {"X-Key": "b"}
    assert check_headers({"X-Key": "a"}, "zeckta", before) == {"X-Key": "a"}
    with pytest.raises(InvalidInput, match="dispatcher's own"):
        check_headers(before | {"Traceparent": "new"}, "zeckta", before)


def test_what_is_kept() -> None:
    """Without a trace the line is the URL alone, as it always was."""
    assert first_line("https://a.example/", ()) == b"https://a.example/"
    assert divided("https://a.example/") == ("https://a.example/", ())
    assert url_of(b"https://a.example/\t" + PARENT.encode() + b'\n{"a":"\\n"}') == "https://a.example/"
