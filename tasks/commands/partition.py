"""`dispatcher partition`: which partition a workspace's status changes belong to, and where its queue is. Asks no Redis."""

import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from dispatcher.model import MESSAGE_UUID_PATTERN, WORKSPACE_PATTERN
from dispatcher.rules.partitions import MOST_WIDTH, Partitioning, slot_of, tags
from dispatcher.store.connection import safe_url
from dispatcher.store.keys import keys_of
from dispatcher.store.topology import Kind, Topology
from tasks import terminal, wiring


class Row(NamedTuple):
    """A partition."""

    partition: int
    tag: str
    slot: int | None
    """None without a tag: then every key has a slot of its own."""
    queue: str
    server: str = ""
    """Empty unless there are several plain servers."""


def partition(
    workspace: Annotated[str | None, typer.Argument(help="A workspace.", show_default=False)] = None,
    message: Annotated[
        str | None,
        typer.Option(
            help="UUID of a message: its partition alone, if the width is over 1.", show_default=False
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(min=1, max=MOST_WIDTH, help="Over how many partitions the workspace is spread.")
    ] = 1,
    all_: Annotated[bool, typer.Option("--all", help="Of all partitions.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the partition of a workspace: its number, tag and slot, and the key of its queue.

    It follows from DISPATCHER_PARTITIONS alone; nothing is read from Redis. docs/partitions.md says how it is computed.

    Examples:

      dispatcher partition acme

      dispatcher partition acme --width 4 --message 0b6b0c4e-6f2d-4d3a-9a39-0d7a2a1f8f11

      dispatcher partition --all --json
    """
    settings = terminal.settings()
    if all_ == (workspace is not None) or (all_ and (message is not None or width > 1)):
        terminal.fail(
            "give either a WORKSPACE or --all; --message and --width go with a WORKSPACE", terminal.USAGE
        )
    rows = partitions_of(wiring.redis_url(settings), settings.key_prefix, settings.partitions)
    if workspace is not None:
        rows = [rows[one] for one in _of_workspace(settings.partitions, workspace, width, message)]
    _show(rows, as_json)


def _of_workspace(partitions: int, workspace: str, width: int, message: str | None) -> Sequence[int]:
    """The partitions of a workspace, or of one of its messages."""
    if not re.fullmatch(WORKSPACE_PATTERN, workspace):
        terminal.fail("a workspace's name is 1 to 64 letters, digits, _ or -", terminal.USAGE)
    if message is not None and not re.fullmatch(MESSAGE_UUID_PATTERN, message):
        terminal.fail("a message's UUID is 1 to 64 letters, digits, dots, _ or -", terminal.USAGE)
    division = Partitioning(partitions)
    return division.all_of(workspace, width) if message is None else [division.of(workspace, message, width)]


def partitions_of(url: str, prefix: str, partitions: int) -> list[Row]:
    """All partitions of an installation."""
    topology = Topology.parse(url)
    servers = topology.urls if topology.kind is Kind.SEVERAL else ()
    return [
        Row(
            keys.partition,
            tag,
            slot_of(tag) if tag else None,
            keys.events,
            safe_url(servers[keys.partition % len(servers)]) if servers else "",
        )
        for keys, tag in zip(keys_of(prefix, partitions), tags(partitions), strict=True)
    ]


def _show(rows: Sequence[Row], as_json: bool) -> None:
    has_servers = any(row.server for row in rows)
    columns = Row._fields if has_servers else Row._fields[:-1]
    if as_json:
        terminal.print_json([dict(zip(columns, row, strict=False)) for row in rows])
        return
    cells = [tuple(None if cell == "" else cell for cell in row[: len(columns)]) for row in rows]
    terminal.print_table(columns, cells, "")
