"""`--move-waiting`: moves what waits for a subscription to its new URL, and what is said of what stays behind."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.audit import shown_url
from dispatcher.store.stored_callback import Waiting
from tasks import tables, terminal, wiring
from tasks.actions import endpoints, workspaces
from tasks.actions.workspaces import Moved
from tasks.progress import progress

MoveWaiting = Annotated[
    bool, typer.Option("--move-waiting", help="With --callback-url: move waiting callbacks there too.")
]
MoveFrom = Annotated[
    str | None,
    typer.Option(
        help="With --move-waiting: move those to this URL, not to the previous one.", show_default=False
    ),
]


def check_moving(callback_url: str | None, move_from: str | None, *, move_waiting: bool) -> None:
    """Ends the command where the options do not go together."""
    if (move_waiting and not callback_url) or (move_from and not move_waiting):
        terminal.fail(
            "--move-waiting goes with --callback-url, --move-from with --move-waiting", terminal.USAGE
        )


@dataclass(frozen=True)
class Moving:
    """What waits for a subscription's URL from before a change."""

    store: wiring.Store
    workspace: str
    name: str
    """The subscription's, also DEFAULT."""
    before: str

    @classmethod
    async def begin(
        cls, store: wiring.Store, workspace: str, name: str, move_from: str | None, *, needed: bool
    ) -> "Moving":
        """Made before the change. Raises NotFound for an unknown `move_from`, and InvalidInput if there is nothing to move from."""
        of = "" if name == DEFAULT else name
        if move_from:
            origin = parse_callback_url(move_from, allow_http=True).origin
            await endpoints.one(store, EndpointName(workspace, origin, of).owner, origin)
            return cls(store, workspace, name, parse_callback_url(move_from, allow_http=True).url)
        return cls(store, workspace, name, await workspaces.url_before(store, workspace, name, needed=needed))

    @property
    def _stored(self) -> str:
        return "" if self.name == DEFAULT else self.name

    async def move(self) -> str:
        """Moves what waits, and says how much."""
        with terminal.err.status("reading what waits"):
            waiting = await workspaces.waiting_in_order(self.store, self.workspace, self._stored)
        return also(
            await workspaces.move(self.store, self.workspace, self.before, waiting, shown, self._stored)
        )

    async def left(self, new: str | None) -> str:
        """Says what stays behind, and the command that moves it; empty if nothing does."""
        if new in (None, self.before):
            return ""
        count = await workspaces.left_behind(self.store, self.workspace, self.before, self._stored)
        return left_waiting(count, f"subscription update {self.workspace} {self.name}", self.before, new)


def shown(steps: Sequence[Sequence[Waiting]]) -> Iterable[Sequence[Waiting]]:
    """The steps, with a progress bar."""
    return progress(steps, "moving")


def also(moved: Moved | None) -> str:
    """What became of waiting callbacks that were to be moved; empty if none were to be."""
    if moved is None:
        return ""
    stay = tables.counted(moved.left, "stays", "stay")
    left = (
        f"; {stay}: being sent, behind one of the same message that is (repeat this later), or for another URL "
        "(--move-from)"
        if moved.left
        else ""
    )
    return f"; {tables.counted(moved.moved, 'waiting callback goes', 'waiting callbacks go')} to the new URL{left}"


def left_waiting(count: int, of: str, before: str, new: str | None) -> str:
    """A line about callbacks that wait for the URL before, with the command that moves them; "" if there are none.

    `of` is that command, up to its options.
    """
    if not count:
        return ""
    waiting = tables.counted(count, "callback waits", "callbacks wait")
    told = f"{waiting} for the server of the previous URL, {shown_url(before)}, and not for the new one"
    if not new:
        return told
    from_url = shlex.quote(before) if before == shown_url(before) else "PREVIOUS_URL"
    command = f"dispatcher {of} --callback-url {shlex.quote(new)}"
    return f"{told}; to move those for that very URL: {command} --move-waiting --move-from {from_url}"
