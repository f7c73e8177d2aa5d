"""Each script does what its header says it takes and returns; unchecked headers rot."""

import inspect
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from dispatcher.model import Status
from dispatcher.rules.callback import Callback
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Retry
from dispatcher.store import functions, ledger
from dispatcher.store.arguments import HINT_MS, LedgerOptions, Room, ToAccept
from dispatcher.store.functions import function_name
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.messages_to_archive import Leaving
from dispatcher.store.queue import Between
from dispatcher.store.replies import Settlement, ToClaim, ToSettle
from dispatcher.store.script_text import NAMES, sha, source
from dispatcher.store.stored_callback import Waiting
from tests.lua_headers import described, header_of, read, taken
from tests.lua_source import FOLDER, text_of

FRAGMENTS = sorted(
    one.name.removesuffix(".lua") for one in (FOLDER / "lib").iterdir() if one.name.endswith(".lua")
)
FILES = (*NAMES, *(f"lib/{name}" for name in FRAGMENTS))


def test_every_file_is_a_script_or_included() -> None:
    """No Lua file lies about unused: those of `lua` are the commands, those of `lua/lib` are included by some."""
    commands = {one.name.removesuffix(".lua") for one in FOLDER.iterdir() if one.name.endswith(".lua")}
    included = {name for script in NAMES for name in re.findall(r"^-- include (\w+)$", text_of(script), re.M)}
    assert (set(NAMES), set(FRAGMENTS)) == (commands, included)


@pytest.mark.parametrize("name", FILES)
def test_size(name: str) -> None:
    """A file can be read in one sitting: at most 120 lines of at most 110 characters."""
    lines = text_of(name).splitlines()
    assert [] == [line for line in lines if len(line) > 110]
    assert len(lines) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_header(name: str) -> None:
    """A header starts with the script's name, and says where the first arguments are named, and what comes back."""
    header = "\n".join(header_of(name))
    assert header.startswith(f"-- {name}: ")
    assert "\n-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has\n" in header
    assert "\n-- returns {" in header
    assert "-- include prologue" == text_of(name).splitlines()[len(header_of(name))]


@pytest.mark.parametrize("name", NAMES)
def test_arguments(name: str) -> None:
    """The code takes the arguments that the header names, in that order and by these names."""
    assert described(name) == taken(name)


@pytest.mark.parametrize("name", [one for one in FILES if one != "lib/prologue"])
def test_arguments_by_name(name: str) -> None:
    """No file but the prologue reads arguments by their numbers; a fragment reads none at all."""
    text = re.sub(r"--.*", "", text_of(name))
    words = r"\b(KEYS|ARGV|take|each|has_more)\b" if name.startswith("lib/") else r"\b(KEYS|ARGV)\b"
    assert [] == re.findall(words, text)


def test_numbers_are_found() -> None:
    """A header that names one argument more, or another one, than the code takes is not equal to it."""
    assert ["most"] == [one.name for one in described("expire")]
    with pytest.raises(ValueError, match="2 arguments are left"):
        read("expire", [1, 2, 3])


@pytest.mark.parametrize("name", NAMES)
def test_returned_words(name: str) -> None:
    """Every word that a script returns first is in its header."""
    words = set(re.findall(r"\{ '(\w+)', now", text_of(name)))
    assert words
    assert words == set(re.findall(r"\{'(\w+)', now", "\n".join(header_of(name))))


@pytest.mark.parametrize("name", NAMES)
def test_one_method(name: str) -> None:
    """The ledger has one method of the script's name, and it runs that script."""
    written = inspect.getsource(getattr(ledger.Ledger, name))
    assert f'self._run("{name}"' in re.sub(r"\(\s+", "(", written)


@pytest.mark.parametrize(
    "name",
    [
        "beat",
        "claim",
        "settle",
        "wake",
        "expire",
        "expedite",
        "lead",
        "leave",
        "members",
        "retire",
        "retire_messages",
        "retry",
        "stop",
    ],
)
def test_first_command_when_full(name: str) -> None:
    """A script that must work when Redis is full starts with a write that needs no memory."""
    first = re.search(r"redis\.p?call\('(\w+)'", text_of(name))
    assert first
    assert "DEL" == first.group(1)


NOW = 1_800_000_000_000
A, B = "acme https://a.example:443", "other https://b.example:443"
OPTIONS = LedgerOptions(7, 8, 9, 10, 11, 12, 13, 14)
CALLBACK = Callback(
    workspace="acme",
    event_id="e1",
    event_type="MESSAGE_SENT",
    status=Status.SENT,
    message_uuid="m1",
    url="https://a.example/hooks",
    endpoint=A,
    body=b"{}",
    digest="digest",
    timestamp_ns=5,
    ttl_ms=6,
    to_delivered_ms=4,
)
TOLD = ("acme", "m1", "s", 1, 2, b"step", b"told", 2, "phone", "+1", "time", "SMS:3")
STATUS_CHANGE = {
    "entry": 1,
    "workspace": "acme",
    "message": "m1",
    "status": "s",
    "happened": 1,
    "sent": 2,
    "step": b"step",
    "told": b"told",
    "number": 2,
    "then": [{"kind": "phone", "which": "+1"}, {"kind": "time", "which": "SMS:3"}],
}
SETTLEMENTS = (
    Settlement("e1", 3, Delivered(), Attempt(NOW, 5, 200), EndpointHealth.UP),
    Settlement("e2", 4, Retry(60), Attempt(NOW, 6, 503, "http_503", answer=b"no"), EndpointHealth.DOWN, 7, 1),
)
SETTLED = [
    {
        "id": "e1",
        "claim_number": 3,
        "outcome": "delivered",
        "delay_ms": 0,
        "started": NOW,
        "attempt": "5 200",
        "answer": b"",
        "health": "up",
        "retry_after_ms": 0,
    },
    {
        "id": "e2",
        "claim_number": 4,
        "outcome": "lost",
        "delay_ms": 60,
        "started": NOW,
        "attempt": "6 503 http_503",
        "answer": b"no",
        "health": "down",
        "retry_after_ms": 7,
    },
]


def a_batch() -> ToAccept:
    batch = ToAccept([("1-1", CALLBACK)])
    batch.kept_ms = 15
    batch.records += (1, *TOLD)
    return batch


CALLS: dict[str, tuple[Callable[[Ledger], Coroutine[Any, Any, Any]], dict[str, Any]]] = {
    "accept": (
        lambda it: it.accept(
            "token",
            {"acme": "r1", "other": "r2"},
            [("1-2", "acme")],
            a_batch(),
            Room(3, {"acme": 2}, 4),
            Between((1, 0), (1, 1)),
            {("acme", "e1"): "none"},
        ),
        {
            "token": "token",
            "after": "1-0",
            "before": "1-1",
            "hint_ms": HINT_MS,
            "most_given": 3,
            "lease_ms": 10,
            "most_hinted": 4,
            "max_waiting": 8,
            "kept_ms": 15,
            "groups": [
                [
                    {"workspace": "acme", "revision": "r1", "most_of_it": 2},
                    {"workspace": "other", "revision": "r2", "most_of_it": 3},
                ],
                [{"queue_entry": "1-2", "workspace": "acme"}],
                [{"endpoint_id": endpoint_id(A), "name": A}],
                [{"workspace": "acme", "id": "e1", "said": "none"}],
                [
                    {
                        "queue_entry": "1-1",
                        "workspace": "acme",
                        "id": "e1",
                        "about": "digest MESSAGE_SENT s",
                        "endpoint_id": endpoint_id(A),
                        "message": "m1",
                        "stamp": "0" * 21 + "5",
                        "ttl_ms": 6,
                        "body": b"https://a.example/hooks\n{}",
                        "to_delivered_ms": 4,
                    }
                ],
                [STATUS_CHANGE],
            ],
        },
    ),
    "cancel": (
        lambda it: it.cancel("E", [Waiting("e1", 9), Waiting("e2")]),
        {"endpoint_id": "E", "groups": [[{"id": "e1", "expires": 9}, {"id": "e2", "expires": 0}]]},
    ),
    "claim": (
        lambda it: it.claim([ToClaim("E", 5), ToClaim("F", 6)]),
        {
            "lease_ms": 10,
            "hint_ms": HINT_MS,
            "groups": [[{"endpoint_id": "E", "wanted": 5}, {"endpoint_id": "F", "wanted": 6}]],
        },
    ),
    "expedite": (lambda it: it.expedite("E"), {"endpoint_id": "E", "groups": []}),
    "expire": (lambda it: it.expire(5), {"most": 5, "groups": []}),
    "forget": (lambda it: it.forget("acme", ["e1"]), {"workspace": "acme", "groups": [[{"id": "e1"}]]}),
    "erase": (lambda it: it.erase("acme", ["e1"]), {"workspace": "acme", "groups": [[{"id": "e1"}]]}),
    "unlist": (
        lambda it: it.unlist("acme", [("m1", "phone", "+1"), ("m1", "record", "")]),
        {
            "workspace": "acme",
            "groups": [
                [
                    {"message": "m1", "kind": "phone", "which": "+1"},
                    {"message": "m1", "kind": "record", "which": ""},
                ]
            ],
        },
    ),
    "beat": (lambda it: it.beat("w1", "{}"), {"worker": "w1", "heartbeat": "{}", "groups": []}),
    "forward": (
        lambda it: it.forward(3, [("1-1 a", b"{}"), ("1-2 b", b"[]")], ["0-1 c"]),
        {
            "source": 3,
            "groups": [
                [{"gone": "0-1 c"}],
                [{"name": "1-1 a", "raw": b"{}"}, {"name": "1-2 b", "raw": b"[]"}],
            ],
        },
    ),
    "forwarded": (
        lambda it: it.forwarded("token", ["1-1", "1-2"]),
        {"token": "token", "groups": [[{"queue_entry": "1-1"}, {"queue_entry": "1-2"}]]},
    ),
    "lead": (
        lambda it: it.lead("token", 5, full=True),
        {"token": "token", "lease_ms": 5, "is_full": 1, "renews": 0, "with_archive": 5, "groups": []},
    ),
    "leave": (lambda it: it.leave("w1"), {"worker": "w1", "groups": []}),
    "members": (lambda it: it.members(), {"groups": []}),
    "mend": (lambda it: it.mend(["E", "F"]), {"groups": [[{"endpoint_id": "E"}, {"endpoint_id": "F"}]]}),
    "migrate": (lambda it: it.migrate(5, 2), {"most": 5, "format": 2, "groups": []}),
    "move": (
        lambda it: it.move("acme", "https://a.example/old", "https://b.example/new", B, [Waiting("e1", 9)]),
        {
            "workspace": "acme",
            "url": "https://b.example/new",
            "endpoint_id": endpoint_id(B),
            "name": B,
            "url_now": "https://a.example/old",
            "endpoint_id_now": endpoint_id(A),
            "groups": [[{"id": "e1", "expires": 9}]],
        },
    ),
    "reject": (
        lambda it: it.reject("token", [("1-1", "invalid", "why", "acme", "e1")]),
        {
            "token": "token",
            "groups": [
                [
                    {
                        "queue_entry": "1-1",
                        "reason": "invalid",
                        "detail": "why",
                        "workspace": "acme",
                        "id": "e1",
                    }
                ]
            ],
        },
    ),
    "replay": (
        lambda it: it.replay("acme", "e1", copy="e2", in_ms=5, ttl_ms=6, ended_ms=7),
        {
            "workspace": "acme",
            "event_id": "e1",
            "copy": "e2",
            "in_ms": 5,
            "ttl_ms": 6,
            "max_waiting": 8,
            "ended_ms": 7,
            "groups": [],
        },
    ),
    "requeue": (lambda it: it.requeue(["2-1", "2-2"]), {"groups": [[{"id": "2-1"}, {"id": "2-2"}]]}),
    "retire": (
        lambda it: it.retire("token", [(("acme", "e1"), b"text")], [b"1-1", b"1-2"]),
        {
            "token": "token",
            "format": 5,
            "groups": [
                [{"workspace": "acme", "id": "e1", "text": b"text"}],
                [{"note": b"1-1"}, {"note": b"1-2"}],
            ],
        },
    ),
    "retire_messages": (
        lambda it: it.retire_messages(
            "token",
            [
                Leaving("acme", "m1", b"text", "over", [("phone", "+1")]),
                Leaving("acme", "m2", b"", "refused"),
            ],
        ),
        {
            "token": "token",
            "format": 6,
            "groups": [
                [
                    {
                        "workspace": "acme",
                        "message": "m1",
                        "text": b"text",
                        "what": "over",
                        "number": 1,
                        "then": [{"kind": "phone", "which": "+1"}],
                    },
                    {
                        "workspace": "acme",
                        "message": "m2",
                        "text": b"",
                        "what": "refused",
                        "number": 0,
                        "then": [],
                    },
                ],
            ],
        },
    ),
    "retry": (
        lambda it: it.retry("E", [("e1", 5.5), ("e2", 4.0)]),
        {
            "endpoint_id": "E",
            "ends_pause": 1,
            "left": 2,
            "groups": [[{"id": "e1", "due": "5.5"}, {"id": "e2", "due": "4.0"}]],
        },
    ),
    "settle": (
        lambda it: it.settle([ToSettle("E", SETTLEMENTS, 5), ToSettle("F", SETTLEMENTS[:1])]),
        {
            "hint_ms": HINT_MS,
            "delivered_body_ms": 11,
            "breaker_failures": 12,
            "first_pause_ms": 13,
            "max_pause_ms": 14,
            "lease_ms": 10,
            "groups": [
                [
                    {"endpoint_id": "E", "wanted": 5, "number": 2, "then": SETTLED},
                    {"endpoint_id": "F", "wanted": 0, "number": 1, "then": SETTLED[:1]},
                ]
            ],
        },
    ),
    "stop": (lambda it: it.stop("E"), {"endpoint_id": "E", "stops": 1, "groups": []}),
    "sweep": (lambda it: it.sweep("0", 5), {"cursor": "0", "number": 5, "groups": []}),
    "wake": (
        lambda it: it.wake(5, "w1", "{}"),
        {"most": 5, "hint_ms": HINT_MS, "worker": "w1", "heartbeat": "{}", "groups": []},
    ),
}


class Sent(Exception):
    """The command was sent; no answer comes."""


def sent_by(call: Callable[[Ledger], Coroutine[Any, Any, Any]]) -> list[Any]:
    """The command that a method of the ledger sends."""
    command: list[Any] = []

    async def send(*some: Any) -> Any:
        command.extend(some)
        raise Sent

    with suppress(Sent):
        call(Ledger(send, Keys("own"), options=OPTIONS, clock=lambda: NOW)).send(None)
    return command


@pytest.mark.parametrize("name", NAMES)
def test_what_python_gives(name: str) -> None:
    """The ledger's method gives what the header names, in that order: first of all what every script takes."""
    call, expected = CALLS[name]
    command, script, keys, root, now, max_concurrency, retention_ms, *arguments = sent_by(call)
    runs = ("FCALL", function_name(name)) if name in functions.NAMES else ("EVALSHA", sha(name))
    assert (*runs, 1, Keys("own").root) == (command, script, keys, root)
    assert (NOW, 7, 9) == (now, max_concurrency, retention_ms)
    assert expected == read(name, arguments)


def test_prologue_names_the_first_arguments() -> None:
    """The prologue names the arguments of every script in the order in which it reads them."""
    text = text_of("lib/prologue")
    assert ["now", "max_concurrency", "retention_ms"] == re.findall(r"^--   (\w+)  +", text, re.M)
    assert ["2", "3", "1"] == re.findall(r"ARGV\[(\d)\]", text)
    assert "local MAX_CONCURRENCY, RETENTION_MS = ARGV[2] + 0, ARGV[3]" in source("claim")
