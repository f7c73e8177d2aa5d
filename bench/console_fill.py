"""Fills a Redis for `bench.console`: callbacks in every state, endpoints, counters of a week; written as the scripts write them.

By raw commands, many in one: a million callbacks would take the scripts a quarter of an hour. Nothing has a TTL.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import redis

from bench.report import Progress
from dispatcher.model import StatusChange, encode_json, iso
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import REJECTIONS
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.message_record import arguments, reference_digest

AT_ONCE = 1000
"""Values in one command, and commands in one pipeline."""
HOUR_MS, DAY_MS, WEEK_MS = 3_600_000, 86_400_000, 604_800_000
LIFE_MS = 172_800_000
FAILED_EVERY, WAITING_EVERY, MESSAGE_EVERY = 30, 50, 10
"""Of so many callbacks one failed, of so many endpoints one does not take its callbacks, of so many messages one is in the message store."""
REJECTED = AUDITED = 10_000
KEYS = Keys()


@dataclass(frozen=True)
class Size:
    """How much there is."""

    callbacks: int
    endpoints: int
    workspaces: int


@dataclass(frozen=True)
class Filled:
    """What is in Redis, and one of each for pages to show."""

    size: Size
    now_ms: int

    def workspace(self, number: int) -> str:
        """The workspace of a callback or an endpoint."""
        return f"customer{number % self.size.workspaces}"

    def url(self, number: int) -> str:
        """The endpoint of a callback."""
        number %= self.size.endpoints
        return f"https://hooks-{number}.{self.workspace(number)}.example:443"

    def endpoint(self, number: int) -> str:
        """Its id."""
        return endpoint_id(EndpointName(self.workspace(number), self.url(number)))

    def is_waiting(self, number: int) -> bool:
        """Whether a callback waits: all of an endpoint that does not take them."""
        return number % self.size.endpoints % WAITING_EVERY == 7

    def is_failed(self, number: int) -> bool:
        """Whether it was given up."""
        return (
            not self.is_waiting(number) and (number * 7 + number // self.size.endpoints) % FAILED_EVERY == 0
        )

    def first(self, failed: bool) -> int:
        """The number of a callback that failed, or of one that waits."""
        return next(
            n for n in range(self.size.callbacks) if (self.is_failed if failed else self.is_waiting)(n)
        )

    def accepted_ms(self, number: int) -> int:
        """When it was accepted: all within a week, or within a day if they wait."""
        within = DAY_MS if self.is_waiting(number) else WEEK_MS
        return self.now_ms - HOUR_MS - within + (within * number // self.size.callbacks)


def event_id(number: int) -> str:
    """The eventId of a callback."""
    return f"e{number:08d}-1f0c4a52"


def message(number: int) -> str:
    """The message of a callback: each has its own."""
    return f"m{number:08d}-6a5ad0ba-b5a9-11ef-b8d9"


def fill(client: "redis.Redis", size: Size, progress: Progress) -> Filled:
    """Fills Redis; the workspaces are there already."""
    filled = Filled(size, round(time.time() * 1000))
    progress.start(
        f"{size.callbacks:,} callbacks of {size.endpoints:,} endpoints and {size.workspaces:,} workspaces"
    )
    for first in range(0, size.callbacks, AT_ONCE):
        _callbacks(client, filled, range(first, min(first + AT_ONCE, size.callbacks)))
        progress.part(first / size.callbacks)
    progress.start("endpoints, messages, counters of a week, rejected entries, the log")
    for kind in (_endpoints, _messages, _counters, _rejected, _audited, _alerts):
        commands = kind(filled)
        while some := list(islice(commands, AT_ONCE)):
            pipe = client.pipeline(transaction=False)
            for command in some:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
            pipe.execute()
    return filled


def _callbacks(client: "redis.Redis", filled: Filled, numbers: range) -> None:
    values: dict[str, str] = {}
    pipe: Any = client.pipeline(transaction=False)
    for number in numbers:
        workspace, id_, endpoint = filled.workspace(number), event_id(number), filled.endpoint(number)
        accepted = filled.accepted_ms(number)
        about = f"{number:016x} MESSAGE_DELIVERED d {accepted}"
        values[KEYS.message(workspace, message(number))] = id_
        body = f'{filled.url(number)}/hooks\n{{"eventId":"{id_}","status":"DELIVERED","number":"+2332{number:08d}"}}'
        if filled.is_waiting(number):
            state = f"retrying 1 {endpoint} {message(number)} {LIFE_MS} -\n40 12 503 http_503"
            pipe.zadd(KEYS.lane(endpoint), {id_: accepted + 60_000})
            pipe.zadd(KEYS.expiries, {f"{workspace}:{id_}": accepted + LIFE_MS})
        elif filled.is_failed(number):
            state = f"failed 2 {endpoint} {message(number)} {LIFE_MS} 90000\n40 12 503 http_503\n89900 90 404 http_404"
            pipe.zadd(KEYS.ended(workspace, "failed"), {id_: accepted + 90_000})
            values[KEYS.answer(workspace, id_)] = "no such hook"
        else:
            state, body = f"d 1 {endpoint} {message(number)} {LIFE_MS} 61\n3 55 200", ""
        values[KEYS.event(workspace, id_)] = f"{about} {state}"
        if body:
            values[KEYS.body(workspace, id_)] = body
    pipe.mset(values)
    pipe.execute()


def _endpoints(filled: Filled) -> Iterator[tuple[Any, ...]]:
    """Records of endpoints. Those that do not take their callbacks were stopped by an operator, or are paused by the breaker for hours."""
    size, now = filled.size, filled.now_ms
    each = size.callbacks // size.endpoints
    for number in range(size.endpoints):
        id_, workspace = filled.endpoint(number), filled.workspace(number)
        fields: list[Any] = [
            "name",
            f"{workspace} {filled.url(number)}",
            "seen",
            now,
            "window",
            8,
            "p95",
            40 + number % 400,
            "waiting",
            each if filled.is_waiting(number) else 0,
        ]
        if filled.is_waiting(number):
            fields += ["failures", 12, "down_since", now - HOUR_MS, "last_failure"]
            fields += [f"{now - 60_000} http_503 1 {event_id(number)}"]
            fields += (
                ["stopped", now - HOUR_MS] if number % 2 else ["pause", now + DAY_MS, "pause_ms", DAY_MS]
            )
            if not number % 2:
                yield "ZADD", KEYS.schedule_of(workspace), now + DAY_MS, id_
                yield "ZADD", KEYS.schedule, now + DAY_MS, workspace
        yield "HSET", KEYS.endpoint(id_), *fields
        yield "ZADD", KEYS.endpoints, now, id_


def _messages(filled: Filled) -> Iterator[tuple[Any, ...]]:
    """Messages in the message store, with the lists that lead to them."""
    for number in range(0, filled.size.callbacks, MESSAGE_EVERY):
        workspace, at = filled.workspace(number), filled.accepted_ms(number)
        about = {"uuid": message(number), "src": "ZECKTA", "dest": f"+2332{number:08d}", "segments": 1}
        about |= {"reference": {"key": f"order-{number}"}, "customerMessageId": f"c-{number}"}
        change = StatusChange.from_dict(
            {"workspace": workspace, "status": "DELIVERED", "timestamp": iso(at), "message": about}
        )
        given: list[Any] = [*arguments(change, "zeckta")]
        _, uuid, letter, at_ms, sent, head, told, *_ = given
        record = f"{letter}{sent:013d}{0:06d}{0:04d}".encode() + head + told
        yield "SET", KEYS.status(workspace, str(uuid)), record
        yield "ZADD", KEYS.status_phone(workspace, f"+2332{number:08d}"), at_ms, uuid
        yield "ZADD", KEYS.status_reference(workspace, reference_digest(f"order-{number}")), at_ms, uuid
        yield "SET", KEYS.status_customer(workspace, "SMS", f"c-{number}"), uuid


def _counters(filled: Filled) -> Iterator[tuple[Any, ...]]:
    size, now = filled.size, filled.now_ms
    for minute in range(now // 60_000 - 1439, now // 60_000 + 1):
        yield (
            "HSET",
            KEYS.stats("minute", minute),
            "accepted",
            100,
            "delivered",
            96,
            "failed",
            3,
            "duplicate",
            1,
        )
    names = (
        "accepted",
        "failed",
        "messagesDelivered",
        "messagesFailed",
        *(f"d{n}" for n in (16, 18, 20, 24, 40)),
    )
    hour = [
        part for n in range(size.workspaces) for name in names for part in (f"customer{n} {name}", 3 + n % 9)
    ]
    for number in range(now // HOUR_MS - 167, now // HOUR_MS + 1):
        for first in range(0, len(hour), 2000):
            yield "HSET", KEYS.stats("hour", number), *hour[first : first + 2000]
    day = [f"{filled.endpoint(n)} {name}" for n in range(size.endpoints) for name in ("delivered", "failed")]
    for number in range(now // DAY_MS - 6, now // DAY_MS + 1):
        for first in range(0, len(day), 1000):
            yield (
                "HSET",
                KEYS.stats("day", number),
                *(part for name in day[first : first + 1000] for part in (name, 7)),
            )


def _rejected(filled: Filled) -> Iterator[tuple[Any, ...]]:
    for number in range(REJECTED):
        at, workspace = filled.now_ms - WEEK_MS // 2 + number * 1000, filled.workspace(number)
        entry = {
            "entry": f"{at}-1",
            "at": at,
            "reason": REJECTIONS[number % 3],
            "detail": "message.dest is missing",
            "raw": encode_json({"workspace": workspace, "status": "DELIVERED", "pad": "x" * 300}),
            "workspace": workspace,
            "eventId": f"r{number}",
            "cut": 0,
        }
        yield "XADD", KEYS.rejected, f"{at}-0", *chain.from_iterable(entry.items())
        yield "HINCRBY", KEYS.rejected_counts, entry["reason"], 1


def _audited(filled: Filled) -> Iterator[tuple[Any, ...]]:
    for number in range(AUDITED):
        entry = {
            "via": "api",
            "who": "key 1",
            "what": "workspace.update",
            "workspace": filled.workspace(number),
            "from": "{}",
            "to": '{"callbackUrl":"https://a.example"}',
        }
        at = filled.now_ms - WEEK_MS // 2 + number * 1000
        yield "XADD", KEYS.audit, f"{at}-0", *chain.from_iterable(entry.items())


def _alerts(filled: Filled) -> Iterator[tuple[Any, ...]]:
    for number in range(200):
        alert = {
            "at": filled.now_ms - number * 60_000,
            "worker": "w1",
            "kind": "endpoint_down",
            "workspace": filled.workspace(number),
        }
        yield "LPUSH", KEYS.alerts, encode_json(alert | {"endpoint": filled.url(number)})
