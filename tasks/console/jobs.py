"""Long work that a page begins: it is counted first, confirmed by that number, and shows how far it is."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from dispatcher.errors import ArchiveUnavailable, DispatcherError, InvalidInput, RedisUnavailable
from dispatcher.store.across.absent import apart
from tasks.console.access import NOT_NOW, Person, missing

MOST_KEPT_OF_ONE, MOST_KEPT = 20, 1000
"""Pieces of work that are over and remembered, of one operator or workspace, and in all; the oldest is forgotten first, customers' before operators'."""
MOST_OF_ONE, MOST_OF_WORKSPACE, MOST_OF_CUSTOMERS = 5, 3, 20
"""Pieces of work that are not over, of one operator, of one workspace's customers, and of all customers."""
MOST_CHOSEN, MOST_COUNTED = 200_000, 500_000
"""What one piece of work, or all of one workspace's customers, may be about, and all work together: what was counted is kept in memory, so that
nothing that comes later is acted on."""
MOST_OF_ALL_CUSTOMERS = MOST_COUNTED - MOST_CHOSEN
"""The same of all customers' work together: an operator's largest piece has room beside it."""
LOOK = 1000
"""A count looks whether there is room for it each time that it has found so many."""
CONFIRM_SECONDS = 900.0
"""How long a count can be confirmed; then it is dropped, with the callbacks that it keeps in memory."""
NO_ROOM = "Dropped: other work needed its room before it was confirmed. Count again."
TOO_MUCH = "too much work is under way: wait until some of it is over, or stop it"
NOT_CONFIRMED = "Dropped: it was not confirmed within a quarter of an hour. Count again."

log = structlog.get_logger()

T = TypeVar("T")


@dataclass
class Progress:
    """What is counted and how much of it is done, for those who look."""

    total: int = 0
    done: int = 0
    is_stopping: bool = False
    """Somebody asked to stop: no further step is begun."""
    make_room: Callable[[], None] | None = None
    """Is called now and then while it counts; raises InvalidInput if there is no room for more."""

    def counted(self, number: int) -> None:
        """Notes how many match so far. Raises InvalidInput for more than a piece of work may be about, or than there is room for."""
        is_time = number // LOOK != self.done // LOOK
        self.done = number
        if is_time and self.make_room:
            self.make_room()
        if number > MOST_CHOSEN:
            raise InvalidInput(
                f"more than {MOST_CHOSEN:,} match: narrow the filter, by a workspace or by times, and do it in parts; or use the command"
            )

    def steps(self, items: Sequence[T], weight: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
        """The items one by one; each counts as done when the next is asked for.

        Raises CancelledError if somebody asked to stop.
        """
        for item in items:
            if self.is_stopping:  # between two steps, so that all that is done is counted
                raise asyncio.CancelledError
            yield item
            self.done += weight(item)


@dataclass
class Chosen:
    """What was counted: its number, what acts on it, and what a page says of it."""

    count: int
    act: Callable[[Progress], Awaitable[str]]
    """Acts on what was counted, and on nothing else; returns the result as a sentence."""
    notes: Sequence[str] = ()
    """What should be known before it begins."""


@dataclass
class Job:
    """One piece of work."""

    id: str
    title: str
    verb: str
    """What the button says: `Replay`."""
    noun: tuple[str, str]
    """What it is about: `callback`, `callbacks`."""
    person: Person
    back: str
    """The page to go back to."""
    state: str = "counting"
    """counting, ready, running, done, failed or stopped."""
    progress: Progress = field(default_factory=Progress)
    chosen: Chosen | None = None
    said: str = ""
    task: "asyncio.Task[None] | None" = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self.state in ("done", "failed", "stopped")

    @property
    def of(self) -> tuple[str, int] | str:
        """Whose limits it counts for: a customer's workspace's, or an operator's own."""
        return (self.person.workspace, self.person.since_ms) if self.person.workspace else self.person.who

    @property
    def kept(self) -> int:
        """How many callbacks it keeps in memory."""
        return 0 if self.is_over else self.progress.done if self.state == "counting" else self.progress.total

    @property
    def counted(self) -> str:
        """The number and what it counts: `1,200 callbacks`."""
        return f"{self.progress.total:,} {self.noun[self.progress.total != 1]}"


class Jobs:
    """The work of one process, by id."""

    def __init__(self, confirm_seconds: float = CONFIRM_SECONDS) -> None:
        self._jobs: dict[str, Job] = {}
        self._confirm_seconds = confirm_seconds

    def of(self, person: Person) -> list[Job]:
        """The work that a person may see, latest first: a customer's own workspace's, or all."""
        return [one for one in reversed(self._jobs.values()) if _may_see(person, one)]

    def get(self, person: Person, id_: str) -> Job | None:
        """A piece of work, if the person may see it."""
        found = self._jobs.get(id_)
        return found if found and _may_see(person, found) else None

    def count(self, job: Job, choose: Callable[[Progress], Awaitable[Chosen]]) -> Job:
        """Begins to count what a piece of work would be about. Raises InvalidInput where too much is under way."""
        self._admit(job)
        self._jobs[job.id] = job
        self._forget(job)
        job.progress.make_room = lambda: self._make_room(job)
        _start(job, self._run(job, lambda: self._choose(job, choose)))
        return job

    def _admit(self, job: Job) -> None:
        """Drops the oldest count that was not confirmed where there is too much work. Raises InvalidInput if there is none."""
        own, customers = self._under_way(job)
        if len(own) >= (MOST_OF_WORKSPACE if job.person.workspace else MOST_OF_ONE):
            self._drop_oldest(own)
        elif job.person.workspace and len(customers) >= MOST_OF_CUSTOMERS:
            self._drop_oldest(own or customers)

    def _make_room(self, job: Job) -> None:
        """The same where more callbacks are kept in memory than may be."""
        while True:
            own, customers = self._under_way(job)
            operators = [one for one in self._jobs.values() if not one.person.workspace]
            others = customers if job.person.workspace else [*customers, *operators]
            if job.person.workspace and sum(one.kept for one in own) > MOST_CHOSEN:
                self._drop_oldest(own)
            elif job.person.workspace and sum(one.kept for one in customers) > MOST_OF_ALL_CUSTOMERS:
                self._drop_oldest([*own, *customers])
            elif sum(one.kept for one in self._jobs.values()) > MOST_COUNTED:
                self._drop_oldest([*own, *others])
            else:
                return

    def _under_way(self, job: Job) -> tuple[list[Job], list[Job]]:
        """What is not over, the oldest first: that which counts for the same limits as a piece of work, and all customers'."""
        under_way = [one for one in self._jobs.values() if not one.is_over]
        return [one for one in under_way if one.of == job.of], [
            one for one in under_way if one.person.workspace
        ]

    def _drop_oldest(self, among: Sequence[Job]) -> None:
        oldest = next((one for one in among if one.state == "ready"), None)
        if oldest is None:
            raise InvalidInput(TOO_MUCH)
        self._drop(oldest, NO_ROOM)

    def _forget(self, job: Job) -> None:
        """Forgets work that is over, where more is remembered than may be."""
        over = [one for one in self._jobs.values() if one.is_over]
        own = [one for one in over if one.of == job.of]
        by_turn = sorted(over, key=lambda one: not one.person.workspace)  # stable: the oldest of each first
        for one in {*_beyond(own, MOST_KEPT_OF_ONE), *_beyond(by_turn, MOST_KEPT)}:
            del self._jobs[one]

    async def _choose(self, job: Job, choose: Callable[[Progress], Awaitable[Chosen]]) -> None:
        with apart() as absent:
            chosen = await choose(job.progress)
        if lacks := missing(absent, for_customer=bool(job.person.workspace)):
            chosen.notes = [lacks, *chosen.notes]
        job.chosen, job.progress = chosen, Progress(chosen.count)
        job.state, job.said = "ready", ""
        if not chosen.count:
            job.state, job.said = "done", f"Nothing matches: there is nothing to do. {lacks}".strip()
        asyncio.get_running_loop().call_later(self._confirm_seconds, self._drop, job, NOT_CONFIRMED)

    def begin(self, job: Job) -> None:
        """Begins what was counted, once."""
        if job.state == "ready" and job.chosen:
            job.state = "running"
            chosen = job.chosen
            _start(job, self._run(job, lambda: self._act(job, chosen)))

    async def _act(self, job: Job, chosen: Chosen) -> None:
        with apart() as absent:
            said = await chosen.act(job.progress)
        job.said = f"{said} {missing(absent, for_customer=bool(job.person.workspace))}".strip()
        job.state, job.chosen = "done", None

    def stop(self, job: Job) -> None:
        """Stops it: a count at once, what acts after its present step; what was done stays done."""
        if job.state == "running":
            job.progress.is_stopping = True
        elif job.task and not job.task.done():
            job.task.cancel()
        else:
            self._drop(job, "Dropped: nothing was done.")

    @staticmethod
    def _drop(job: Job, why: str) -> None:
        """Drops a count that is not confirmed."""
        if job.state == "ready":
            job.state, job.said, job.chosen = "stopped", why, None

    async def _run(self, job: Job, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            job.state, job.chosen = "stopped", None
            job.said = (
                f"Stopped after {job.progress.done:,} of {job.counted}; what was done stays done."
                if job.progress.total
                else "Dropped: nothing was done."
            )
        except DispatcherError as error:
            job.state, job.chosen = "failed", None
            done = f"After {job.progress.done:,} of {job.counted}: " if job.progress.total else ""
            job.said = f"{done}{_said(job, error)}"
        except Exception:
            log.exception("console.job_failed", title=job.title)
            job.state, job.chosen = "failed", None
            job.said = "It broke off by a fault of ours, which is in the log."

    async def close(self) -> None:
        """Stops all work under way, and waits for it."""
        tasks = [one.task for one in self._jobs.values() if one.task and not one.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _start(job: Job, run: Coroutine[Any, Any, None]) -> None:
    """Runs it. What is stopped before its first step is stopped too: nothing of it ran that could say so."""

    def ended(task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            job.state, job.said, job.chosen = "stopped", "Dropped: nothing was done.", None

    job.task = asyncio.create_task(run)
    job.task.add_done_callback(ended)


def _beyond(jobs: Sequence[Job], most: int) -> list[str]:
    """The ids of the first of some, so that `most` are left."""
    return [one.id for one in jobs[: max(0, len(jobs) - most)]]


def new_id() -> str:
    """A fresh id, which cannot be guessed."""
    return secrets.token_hex(8)


def _said(job: Job, error: DispatcherError) -> str:
    """What went wrong; where our servers are does not concern a customer."""
    is_away = isinstance(error, RedisUnavailable | ArchiveUnavailable)
    return NOT_NOW if is_away and job.person.workspace else str(error)


def _may_see(person: Person, job: Job) -> bool:
    of = job.person
    return not person.workspace or (of.workspace, of.since_ms) == (person.workspace, person.since_ms)
