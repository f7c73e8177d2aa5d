"""Whether workspaces that have no record in a partition are known to their homes, which alone have a workspace's own record."""

import asyncio
from collections.abc import Callable

import structlog

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.known_messages import KnownMessages
from dispatcher.worker.batch import Fault
from dispatcher.worker.probe import EXPECTED, Probe

ANSWER_SECONDS = 1.0
"""How long a home may take to answer. Everything else on the queue waits meanwhile."""

log = structlog.get_logger()


class Homes:
    """Asks on behalf of the partition `here`. `at` gives what another one knows."""

    def __init__(self, partitioning: Partitioning, here: int, at: Callable[[int], KnownMessages]) -> None:
        self._partitioning = partitioning
        self._here = here
        self._at = at
        self._probes: dict[int, Probe] = {}

    async def why_wait(self, workspace: str) -> Fault | None:
        """Why entries of a workspace without a record here have to wait; None: there is no such workspace, or this is no part of it.

        The latter is so of one that was removed, and added again with a smaller width.
        """
        home = self._partitioning.home(workspace)
        if home == self._here:
            return None
        probe = self._probe(home)
        if not probe.is_away:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    width = await self._at(home).width(workspace)
            except EXPECTED:
                probe.failed()
            except Exception as error:  # whatever it is, the entries are not at fault
                return Fault(f"partition {home}: {type(error).__name__}: {error}", error=error)
            else:
                is_part = width and self._here in self._partitioning.all_of(workspace, width)
                return self._not_copied(workspace, width) if is_part else None
        return Fault(f"partition {home} does not answer, and alone knows whether there is such a workspace")

    def _not_copied(self, workspace: str, width: int) -> Fault:
        return Fault(
            f"partition {self._here} has no copy of the workspace's record: if that stays so, repeat "
            f"`dispatcher workspace update {workspace} --width {width}`"
        )

    def _probe(self, home: int) -> Probe:
        if home not in self._probes:
            self._probes[home] = Probe(self._at(home).ping, _log)
        return self._probes[home]


def _log(error: Exception) -> None:
    log.error("intake.not_asked", problem=str(error) or type(error).__name__, exc_info=error)
