"""Queue entries made ready to be accepted: validated, rendered, or rejected with the reason."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.ledger import ToAccept
from dispatcher.model import Callback, StatusChange
from dispatcher.render import RenderOptions, render
from dispatcher.status_api.record import Recorder
from dispatcher.workspaces import Workspace, WorkspaceCache

PREPARED_AT_ONCE = 16
"""Entries that are rendered before the loop's other work goes on: the batch before must get onto the wire."""

log = structlog.get_logger()

Entry = tuple[str, Sequence[bytes]]
"""Its id; names and values in turn."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an entry cannot be used; `detail` says what to do."""

    reason: str
    detail: str
    workspace: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that were looked at, by what becomes of them."""

    workspaces: dict[str, Workspace | None] = field(default_factory=dict)
    """That they name; None where there is none of that name."""
    callbacks: ToAccept = field(default_factory=ToAccept)
    skipped: list[str] = field(default_factory=list)
    """Those that cause no callback."""
    rejected: list[tuple[str, Rejection]] = field(default_factory=list)

    @property
    def revisions(self) -> dict[str, str]:
        """Of the workspaces they were rendered for."""
        return {one.id: one.revision for one in self.workspaces.values() if one}


class Preparer:
    """Prepares batches. `now_ms` is Redis's clock."""

    def __init__(
        self,
        workspaces: WorkspaceCache,
        now_ms: Callable[[], int],
        options: RenderOptions,
        recorder: Recorder | None = None,
    ) -> None:
        self._workspaces = workspaces
        self._now_ms = now_ms
        self._options = options
        self._recorder = recorder

    async def prepare(self, entries: Sequence[Entry]) -> Batch:
        """All of them, in their order. Raises RedisUnavailable."""
        batch = Batch()
        for number, (entry, fields) in enumerate(entries, 1):
            if rejection := await self._add(batch, entry, fields):
                batch.rejected.append((entry, rejection))
            if number % PREPARED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return batch

    async def _add(self, batch: Batch, entry: str, fields: Sequence[bytes]) -> Rejection | None:
        """Adds what an entry causes; or says why it cannot be used."""
        raw = next(
            (value for name, value in zip(fields[::2], fields[1::2], strict=True) if name == b"event"), None
        )
        if raw is None:
            return Rejection(
                "no_event_field", "the entry has no field `event`: XADD dispatcher:events '*' event '<json>'"
            )
        try:
            change = StatusChange.from_json(raw)
        except InvalidInput as error:
            return Rejection("invalid", str(error))
        if change.workspace not in batch.workspaces:
            batch.workspaces[change.workspace] = await self._workspaces.get(change.workspace)
        workspace = batch.workspaces[change.workspace]
        if workspace is None:
            detail = f"there is no workspace {change.workspace!r}: make it with `dispatcher workspace add`, enqueue again"
            return Rejection("unknown_workspace", detail, change.workspace, change.event_id)
        try:
            rendered = render(change, workspace, self._now_ms(), self._options)
        except InvalidInput as error:
            return Rejection("invalid", str(error), change.workspace, change.event_id)
        except RedisUnavailable:
            raise
        except Exception as error:
            log.exception("intake.internal_error", entry=entry)
            detail = f"{type(error).__name__}: {error}"
            return Rejection("internal_error", detail, change.workspace, change.event_id)
        if isinstance(rendered, Callback):
            batch.callbacks.add(entry, rendered)
        else:
            batch.skipped.append(entry)
        if self._recorder:
            number = batch.callbacks.count if isinstance(rendered, Callback) else 0
            self._recorder.add(batch.callbacks, change, workspace.dialect, number)
        return None
