"""Arguments of accept, claim and settle, in the order of their headers (lua/accept.lua, claim.lua, settle.lua)."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.model import LETTERS
from dispatcher.rules.callback import Callback
from dispatcher.rules.endpoint_name import subscription_of
from dispatcher.rules.outcomes import Delivered, Expired, Failed, Released, Retry
from dispatcher.store.command_parts import MOST_LISTED
from dispatcher.store.entry import write_record
from dispatcher.store.kept_body import first_line
from dispatcher.store.keys import endpoint_id
from dispatcher.store.queue import Between, id_at
from dispatcher.store.replies import Settlement, ToClaim, ToSettle
from dispatcher.store.wire import Argument

HINT_MS = 5000
"""How long a hint keeps an endpoint from being hinted again; a lost hint delays it by at most this."""

OF_EACH_CALLBACK = 10
"""Arguments that `ToAccept.add` appends per callback."""
WORKSPACE_AT, ID_AT, ENDPOINT_AT, MESSAGE_AT = 1, 2, 4, 5
"""Index of the workspace, and of the ids of callback, endpoint and message among them."""
OF_EACH_RECORD = 9
"""Arguments of a status change's record, the last of which says how many pairs follow (lua/accept.lua)."""
OF_EACH_ENDPOINT, OF_EACH_WORKSPACE, OF_EACH_SKIPPED = 2, 3, 2
MOST_OF_ENTRY = OF_EACH_WORKSPACE + OF_EACH_SKIPPED + OF_EACH_RECORD + 2 * 5
"""Most arguments of an entry beside its callbacks: a message can have five lookup keys."""
OF_EACH_RETIRED = OF_EACH_CALLBACK + OF_EACH_ENDPOINT + 3
"""Most arguments of a callback of which accept is told what the archive has said."""
OF_EACH_OUTCOME = 9

Id = tuple[str, str]
"""Workspace and eventId."""
NOTHING_SAID: Mapping[Id, str] = {}
NOT_ARCHIVED, ERASED = "none", "-"
"""What stands for the digest of a callback that the archive does not have, and of one that was erased."""
WITH_ARCHIVE = 5
"""The number of the data's format (format.py) in which callbacks may be retired."""
WITH_MESSAGES = 6
"""The one in which messages may be retired too."""

MOST_OUTCOMES = MOST_LISTED // OF_EACH_OUTCOME
"""Most outcomes of one endpoint in a call of settle."""


@dataclass(frozen=True)
class LedgerOptions:
    """The settings that the scripts need."""

    max_concurrency: int = 20
    max_waiting: int = 0
    """Per endpoint; 0: no limit."""
    retention_ms: int = 604_800_000
    lease_ms: int = 30_000
    delivered_body_ms: int = 3_600_000
    breaker_failures: int = 10
    breaker_pause_ms: int = 10_000
    breaker_max_pause_ms: int = 600_000
    archives: bool = False
    """Whether the installation has an archive: what ends is noted for it."""


class ToAccept:
    """Callbacks with their queue entries, and what their status changes say about messages, as one call of accept takes them."""

    def __init__(self, callbacks: Iterable[tuple[str, Callback]] = ()) -> None:
        self.entries = 0
        """How many entries `add_entry` has added."""
        self.count = 0
        """Callbacks; an entry that causes several has them one after the other, its own last (rules/render.py)."""
        self.endpoints: dict[str, str] = {}
        """Endpoint ids by endpoint name."""
        self.workspaces: set[str] = set()
        """The workspaces of its entries, and of those to be forwarded: accept compares their revisions."""
        self.skipped: list[tuple[str, str]] = []
        """Entries without callbacks, each with its workspace."""
        self.arguments: list[Argument] = []
        self.kept_ms = 0
        """How long a message is kept after its last change; 0 without `records`."""
        self.records: list[Argument] = []
        """For each status change the number of its entry (0: no callback), then its arguments from message_record.py."""
        for entry, callback in callbacks:
            self.add(entry, callback)

    def add_entry(self, entry: str, workspace: str, callbacks: Sequence[Callback]) -> None:
        """Adds a queue entry of a workspace with its callbacks; it may have none."""
        for callback in callbacks:
            self.add(entry, callback)
        self.workspaces.add(workspace)
        if callbacks:
            self.entries += 1
        else:
            self.skipped.append((entry, workspace))

    def add(self, entry: str, callback: Callback) -> None:
        """Adds one callback of a queue entry."""
        self.count += 1
        endpoint = ""
        if callback.endpoint:
            endpoint = self.endpoints[callback.endpoint] = endpoint_id(callback.endpoint)
        trace = callback.trace
        line = first_line(callback.url, trace) if trace else callback.url.encode()
        self.arguments += (
            entry,
            callback.workspace,
            callback.event_id,
            f"{callback.digest} {callback.event_type} {LETTERS[callback.status]}",
            endpoint,
            callback.message_uuid,
            f"{max(callback.timestamp_ns, 0):022d}",
            callback.ttl_ms,
            line + b"\n" + callback.body,
            "" if callback.to_delivered_ms is None else callback.to_delivered_ms,
        )

    def endpoint_ids(self) -> Iterator[list[str]]:
        """The endpoint ids of each entry's callbacks, in order."""
        of_entry: list[str] = []
        ids = zip(
            self.arguments[ID_AT::OF_EACH_CALLBACK],
            self.arguments[ENDPOINT_AT::OF_EACH_CALLBACK],
            strict=True,
        )
        for callback, endpoint in ids:
            of_entry.append(str(endpoint))
            if not subscription_of(str(callback)):
                yield of_entry
                of_entry = []

    def ids(self) -> Iterator[list[Id]]:
        """Workspace and eventId of each entry's callbacks, in order."""
        for some in self._entries():
            columns = (map(str, some[at::OF_EACH_CALLBACK]) for at in (WORKSPACE_AT, ID_AT))
            yield [*zip(*columns, strict=True)]

    def has_room(self, callbacks: int) -> bool:
        """Whether the call can also take an entry with so many callbacks, and what it says about its message."""
        size = len(self.arguments) + len(self.records) + OF_EACH_ENDPOINT * len(self.endpoints)
        size += OF_EACH_WORKSPACE * len(self.workspaces) + OF_EACH_SKIPPED * len(self.skipped)
        return size + (OF_EACH_CALLBACK + OF_EACH_ENDPOINT) * callbacks + MOST_OF_ENTRY <= MOST_LISTED

    def _entries(self) -> Iterator[list[Argument]]:
        """The arguments of each entry's callbacks, in order."""
        place = 0
        for ids in self.endpoint_ids():
            some = self.arguments[place : place + len(ids) * OF_EACH_CALLBACK]
            place += len(some)
            yield some

    def messages(self) -> list[tuple[str, str]]:
        """Workspace and message of each entry with callbacks, in order."""
        columns = (self.arguments[at::OF_EACH_CALLBACK] for at in (WORKSPACE_AT, MESSAGE_AT, ID_AT))
        return [
            (str(workspace), str(message))
            for workspace, message, callback in zip(*columns, strict=True)
            if not subscription_of(str(callback))
        ]

    def without(self, left: Collection[int]) -> "ToAccept":
        """The same without some entries with callbacks, by their index, and without what these say about messages."""
        kept, numbers = ToAccept(), {0: 0}
        kept.kept_ms, kept.workspaces, kept.skipped = self.kept_ms, self.workspaces, self.skipped
        names = {endpoint: name for name, endpoint in self.endpoints.items()}
        for index, some in enumerate(self._entries()):
            if index not in left:
                kept._take(some, names)
                numbers[index + 1] = len(numbers)
        for number, told in self._told():
            if number in numbers:
                kept.records += (numbers[number], *told)
        return kept

    def _take(self, some: Sequence[Argument], names: Mapping[str, str]) -> None:
        """Adds the callbacks of one entry, from other arguments; `names` are endpoint names by id."""
        self.count += len(some) // OF_EACH_CALLBACK
        self.arguments += some
        ids = {str(one) for one in some[ENDPOINT_AT::OF_EACH_CALLBACK] if one}
        self.endpoints |= {names[one]: one for one in ids}

    def _told(self) -> Iterator[tuple[int, list[Argument]]]:
        """The records, each with the number of its entry."""
        first = 0
        while first < len(self.records):
            last = first + OF_EACH_RECORD + 2 * int(self.records[first + OF_EACH_RECORD - 1])
            yield int(self.records[first]), self.records[first + 1 : last]
            first = last


@dataclass(frozen=True, slots=True)
class Room:
    """How much work from accept this worker can take at once."""

    claims: int = 0
    """Most callbacks to lease to it."""
    of_each: Mapping[str, int] = field(default_factory=dict)
    """Most of those per workspace; a workspace without an entry is limited by `claims` alone."""
    hints: int = 1_000_000
    """Most endpoints to hint per workspace; the waker finds the others."""


def of_accept(
    options: LedgerOptions,
    token: str,
    revisions: Mapping[str, str],
    skipped: Sequence[tuple[str, str]],
    callbacks: ToAccept,
    room: Room,
    between: Between | None = None,
    archived: Mapping[Id, str] = NOTHING_SAID,
) -> list[Argument]:
    """The arguments of lua/accept.lua. `archived`: what the archive has said, by workspace and eventId."""
    args: list[Argument] = [token, *(map(id_at, between) if between else ("", ""))]
    args += (HINT_MS, room.claims, options.lease_ms, room.hints)
    args += (options.max_waiting, callbacks.kept_ms, len(revisions))
    for workspace, revision in revisions.items():
        args += (workspace, revision, room.of_each.get(workspace, room.claims))
    args.append(len(skipped))
    for entry, workspace in skipped:
        args += (entry, workspace)
    args.append(len(callbacks.endpoints))
    for name, endpoint in callbacks.endpoints.items():
        args += (endpoint, name)
    args.append(len(archived))
    for (workspace, id_), said in archived.items():
        args += (workspace, id_, said)
    args.append(callbacks.count)
    args += callbacks.arguments
    args += callbacks.records
    return args


def of_claim(options: LedgerOptions, asked: Sequence[ToClaim]) -> list[Argument]:
    """The arguments of lua/claim.lua."""
    return [options.lease_ms, HINT_MS, *(value for one in asked for value in one)]


def of_settle(options: LedgerOptions, asked: Sequence[ToSettle]) -> list[Argument]:
    """The arguments of lua/settle.lua."""
    args: list[Argument] = [HINT_MS, options.delivered_body_ms, options.breaker_failures]
    args += (options.breaker_pause_ms, options.breaker_max_pause_ms, options.lease_ms)
    for one in asked:
        args += (one.endpoint, one.claim, len(one.settlements))
        for s in one.settlements:
            outcome, delay_ms = _outcome(s)
            made = s.attempt if s.attempt and s.attempt.internal_error is None else None
            started, record = (made.started_at_ms, write_record(made)) if made else ("", "")
            answer = s.attempt.answer if s.attempt and outcome != "delivered" else b""
            args += (
                s.event_id,
                s.claim,
                outcome,
                delay_ms,
                started,
                record,
                answer,
                s.health,
                s.retry_after_ms,
            )
    return args


def _outcome(s: Settlement) -> tuple[str, int]:
    match s.outcome:
        case Delivered():
            return "delivered", 0
        case Retry(delay_ms):
            return ("suspect" if s.losses > 1 else "lost" if s.losses else "retry"), delay_ms
        case Failed():
            return "failed", 0
        case Expired():
            return "expired", 0
        case Released(delay_ms):
            return "released", delay_ms
