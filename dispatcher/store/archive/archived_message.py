"""A message as the archive keeps it: its record, taken apart into columns."""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from dispatcher.model import BY_LETTER, LETTERS, Status, decode_json, encode_json
from dispatcher.rules.dialects import dialects
from dispatcher.store.message_record import (
    FINAL,
    OF_THE_STATUS,
    RANKS,
    READ_ON,
    Details,
    MessageRecord,
    lists_of,
    may_follow,
    read_record,
)
from dispatcher.store.stored_message import DAMAGED, StoredMessage, message_of
from dispatcher.store.traces import bare, written

DETAILS = Details.__struct_fields__
Step = tuple[Status, int]


class ArchivedMessage(msgspec.Struct, frozen=True):
    """One message. Times are ms since 1970. The columns from `src` on are those of Details; empty: not given."""

    workspace: str
    uuid: str
    kept_ms: int
    """When it was over, or had not changed for long, by Redis's clock: by its day the archive forgets it."""
    sent_ms: int
    status: str
    """Its letter (dispatcher/model.py)."""
    changed_ms: int
    history: str
    """Each status that it had, as its letter and when: `s1733000000000 d1733000000512`."""
    campaign: str
    keys: str
    """What it is looked up by, as a JSON list: `phone:+39…`, `reference:DIGEST`, `customer:SMS:ID`, `time:SMS`, `campaign:ID`; and for
    `dispatcher erase`, of a number in a writing that is not usual, `bare:39…`."""
    names: str
    """Each channel and customerMessageId that it had, as a JSON list of pairs."""
    src: str
    dest: str
    channel: str
    segments: str
    units: str
    attempts: str
    cost: str
    currency: str
    customer_message_id: str
    network: str
    total_parts: str
    reference: str
    provider: str
    error_code: str
    error_message: str

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands among others, by time."""
        return self.sent_ms, self.uuid

    def only(self, keys: Iterable[str]) -> "ArchivedMessage":
        """The same, looked up by these keys alone."""
        return msgspec.structs.replace(self, keys=_json(keys))

    def look_ups(self) -> list[str]:
        """`keys` as a list."""
        return [str(one) for one in decode_json(self.keys.encode())]

    def steps(self) -> list[Step]:
        """`history` as a list. Raises LookupError, ValueError for a damaged one."""
        return [(BY_LETTER[one[0]], int(one[1:])) for one in self.history.split()]

    def message(self) -> StoredMessage:
        """The same as the message store knows it. Raises ValueError, LookupError for a damaged row."""
        names = frozenset((str(channel), str(id_)) for channel, id_ in decode_json(self.names.encode()))
        details = Details(**{name: getattr(self, name) for name in DETAILS})
        status = BY_LETTER[self.status]
        return message_of(
            self.uuid, MessageRecord(status, self.steps(), self.sent_ms, self.campaign, details, names)
        )


def archived(workspace: str, uuid: str, record: bytes, kept_ms: int, platform: str) -> ArchivedMessage:
    """A message's record as the archive keeps it, with what its platform looks it up by. Raises as read_record."""
    found = read_record(record)
    return ArchivedMessage(
        workspace, uuid, kept_ms, found.sent_ms, LETTERS[found.status], found.history[-1][1], _history(found.history),
        found.campaign_id, _json(_keys(record, found.campaign_id, platform)), _json(sorted(found.names)),
        **msgspec.structs.asdict(found.details),
    )  # fmt: skip


def is_over(message: ArchivedMessage) -> bool:
    """Whether no other status may follow: it has a final one, and cannot be read any more."""
    status = BY_LETTER[message.status]
    if status is Status.DELIVERED:
        return not any(channel in READ_ON for channel, _ in decode_json(message.names.encode()))
    return not any(may_follow(status, other) for other in Status)


def is_final(message: ArchivedMessage) -> bool:
    """Whether it has a final status: then READ may follow at most."""
    return RANKS[message.status] >= FINAL


def whole(messages: Iterable[ArchivedMessage]) -> dict[str, ArchivedMessage]:
    """Each message of a workspace once, by its uuid, in the given order: put together from what several rows have of it."""
    found: dict[str, list[ArchivedMessage]] = {}
    for one in messages:
        found.setdefault(one.uuid, []).append(one)
    return {uuid: together(rows) for uuid, rows in found.items()}


def together(rows: Sequence[ArchivedMessage]) -> ArchivedMessage:
    """One row from several of the same message. It went to the archive several times: after a status that came late, its record began anew.

    A damaged one adds nothing to others.
    """
    if len(rows) > 1:
        rows = [one for one in rows if _is_whole(one)] or rows[-1:]
    first, *others = sorted(rows, key=lambda one: (one.changed_ms, one.kept_ms))
    for other in others:
        first = _together(first, other)
    return first


def _is_whole(row: ArchivedMessage) -> bool:
    try:
        row.message(), row.look_ups()
    except DAMAGED:
        return False
    return bool(row.history)


def _together(earlier: ArchivedMessage, later: ArchivedMessage) -> ArchivedMessage:
    steps = earlier.steps()
    for step in later.steps():
        if step not in steps and may_follow(steps[-1][0], step[0]):
            steps.append(step)
    status, changed_ms = steps[-1]
    newest, other = (later, earlier) if LETTERS[status] == later.status else (earlier, later)
    told = {name: getattr(newest, name) or getattr(other, name) for name in DETAILS}
    told |= {name: getattr(newest, name) for name in OF_THE_STATUS}
    return msgspec.structs.replace(
        newest,
        kept_ms=max(earlier.kept_ms, later.kept_ms),
        sent_ms=earlier.sent_ms,
        status=LETTERS[status],
        changed_ms=changed_ms,
        history=_history(steps),
        campaign=earlier.campaign or later.campaign,
        keys=_json(dict.fromkeys([*earlier.look_ups(), *later.look_ups()])),
        names=_json(sorted({tuple(pair) for one in (earlier, later) for pair in decode_json(one.names.encode())})),
        **told,
    )  # fmt: skip


def lists_on(platform: str, record: bytes) -> list[tuple[str, str]]:
    """Kind and name of each list by which a platform looks up a message; of an unknown platform all. Raises as read_record."""
    wanted = _looked_up_by(platform)
    return [one for one in lists_of(record) if one[0] in wanted]


def _looked_up_by(platform: str) -> Collection[str]:
    dialect = dialects().get(platform)
    return dialect.LOOKED_UP_BY if dialect else ("phone", "reference", "customer", "time", "campaign")


def _keys(record: bytes, campaign: str, platform: str) -> list[str]:
    """What a message is looked up by, with its number on every platform: `dispatcher erase` looks for that."""
    wanted = {"phone", *_looked_up_by(platform)}
    found = dict.fromkeys(
        f"time:{which.rpartition(':')[0]}" if kind == "time" else f"{kind}:{which}"
        for kind, which in lists_of(record)
        if kind in wanted
    )
    if campaign and "campaign" in wanted:
        found[f"campaign:{campaign}"] = None
    for number in [one.partition(":")[2] for one in found if one.startswith("phone:")]:
        if number not in written(bare(number)):
            found[f"bare:{bare(number)}"] = None
    return [*found]


def _history(steps: Iterable[Step]) -> str:
    return " ".join(f"{LETTERS[status]}{at}" for status, at in steps)


def _json(value: Iterable[object]) -> str:
    return encode_json([*value]).decode()
