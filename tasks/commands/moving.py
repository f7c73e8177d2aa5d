"""`--move-waiting`: moves what waits for a subscription to its new URL, and what is said of what stays behind."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeGuard

import typer

from dispatcher.errors import RedisUnavailable
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
    command: str
    """The command that changes it, up to its options."""

    @classmethod
    async def begin(
        cls,
        store: wiring.Store,
        workspace: str,
        name: str,
        move_from: str | None,
        *,
        needed: bool,
        command: str = "",
    ) -> "Moving":
        """Made before the change. Raises NotFound for an unknown `move_from`, and InvalidInput if there is nothing to move from."""
        of = "" if name == DEFAULT else name
        command = command or f"subscription update {workspace} {name}"
        if move_from:
            origin = parse_callback_url(move_from, allow_http=True).origin
            await endpoints.one(store, EndpointName(workspace, origin, of).owner, origin)
            return cls(store, workspace, name, parse_callback_url(move_from, allow_http=True).url, command)
        before = await workspaces.url_before(store, workspace, name, needed=needed)
        return cls(store, workspace, name, before, command)

    async def see_to(
        self, new: str | None, say: Callable[[], None], *, move_waiting: bool
    ) -> tuple[str, str]:
        """After the change: moves what waits, or looks at it; the end of the line about the change, and a line of its own ("": none).

        Raises RedisUnavailable if not all partitions answer; before that, `say` tells of the change, and a line what to run later.
        """
        try:
            if move_waiting:
                return await self._move(), ""
            return "", await self._left(new)
        except RedisUnavailable:
            say()
            if self._may_stay(new):
                what = (
                    "not all that waits for the previous URL was moved"
                    if move_waiting
                    else "whether callbacks wait for the previous URL is not known"
                )
                terminal.err.print(self._with_command(what, new), markup=False)
            raise

    @property
    def _stored(self) -> str:
        return "" if self.name == DEFAULT else self.name

    def _may_stay(self, new: str | None) -> TypeGuard[str]:
        return bool(self.before) and new not in (None, self.before)

    async def _move(self) -> str:
        with terminal.err.status("reading what waits"):
            waiting = await workspaces.waiting_in_order(self.store, self.workspace, self._stored)
        return also(
            await workspaces.move(self.store, self.workspace, self.before, waiting, shown, self._stored)
        )

    async def _left(self, new: str | None) -> str:
        """What stays behind, and the command that moves it; empty if nothing does."""
        if not self._may_stay(new):
            return ""
        count = await workspaces.left_behind(self.store, self.workspace, self.before, self._stored)
        if not count:
            return ""
        waiting = tables.counted(count, "callback waits", "callbacks wait")
        told = (
            f"{waiting} for the server of the previous URL, {shown_url(self.before)}, and not for the new one"
        )
        return self._with_command(told, new)

    def _with_command(self, told: str, new: str) -> str:
        """What is told, with the command that moves what waits to the new URL, if there is one."""
        if not new:
            return told
        from_url = shlex.quote(self.before) if self.before == shown_url(self.before) else "PREVIOUS_URL"
        command = f"dispatcher {self.command} --callback-url {shlex.quote(new)}"
        return f"{told}; to move those for that very URL: {command} --move-waiting --move-from {from_url}"


def shown(steps: Sequence[Sequence[Waiting]]) -> Iterable[Sequence[Waiting]]:
    """The steps, with a progress bar."""
    return progress(steps, "moving")


def also(moved: Moved) -> str:
    """What became of waiting callbacks that were to be moved."""
    stay = tables.counted(moved.left, "stays", "stay")
    left = (
        f"; {stay}: being sent, behind one of the same message that is (repeat this later), or for another URL "
        "(--move-from)"
        if moved.left
        else ""
    )
    return f"; {tables.counted(moved.moved, 'waiting callback goes', 'waiting callbacks go')} to the new URL{left}"
