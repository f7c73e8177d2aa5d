"""Reads endpoints of an installation with several partitions.

An endpoint of a workspace that is spread over several has a record in each: they are put together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import ACTIVE
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.endpoints import Endpoint, Endpoints


class EndpointsAcross(Endpoints):
    """As Endpoints, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._at = partitions.readers(Endpoints)

    async def count(self) -> int:
        """As Endpoints.count, of the partitions that answer."""
        return sum((await self._partitions.everywhere(lambda n: self._at(n).count())).values())

    async def all(self, *, strict: bool = False) -> list[Endpoint]:
        """As Endpoints.all."""
        records: dict[str, list[Endpoint]] = {}
        for n, some in (await self._partitions.everywhere(lambda n: self._at(n).all(strict=strict))).items():
            for one in some:
                records.setdefault(one.id, []).append(one)
                self._partitions.note_endpoint(one.id, [n])
        return sorted(map(together, records.values()), key=lambda one: (-one.waiting, one.owner, one.url))

    async def get(self, name: EndpointName) -> Endpoint | None:
        """As Endpoints.get."""
        records = await self._partitions.known(name.workspace, lambda n: self._at(n).get(name))
        if records:
            self._partitions.note_endpoint(records[0].id, await self._partitions.of(name.workspace))
        return together(records) if records else None

    async def states(self, names: Iterable[EndpointName]) -> dict[EndpointName, str]:
        """As Endpoints.states; active for those whose partition does not answer."""
        by_home: dict[int, list[EndpointName]] = {}
        for name in names:
            by_home.setdefault(self._partitions.partitioning.home(name.workspace), []).append(name)
        if not by_home:
            return {}
        found = await self._partitions.everywhere(lambda n: self._at(n).states(by_home[n]), by_home)
        absent = [name for n, some in by_home.items() if n not in found for name in some]
        return dict.fromkeys(absent, ACTIVE) | {
            name: state for some in found.values() for name, state in some.items()
        }

    async def with_answers(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """As Endpoints.with_answers; without that of a partition which does not answer."""
        asked: dict[int, list[Endpoint]] = {}
        for one in endpoints:
            if one.has_answer:
                for n in await self._partitions.of(one.workspace):
                    asked.setdefault(n, []).append(one)
        found = (
            await self._partitions.everywhere(lambda n: self._at(n).with_answers(asked[n]), asked)
            if asked
            else {}
        )
        answers = {one.id: one.last_answer for some in found.values() for one in some if one.last_answer}
        return [replace(one, last_answer=answers.get(one.id)) for one in endpoints]

    async def later(self, endpoint: Endpoint) -> list[tuple[str, float]]:
        """As Endpoints.later."""
        found = await self._partitions.for_workspace(
            endpoint.workspace, lambda n: self._at(n).later(endpoint)
        )
        return sorted((one for some in found for one in some), key=lambda one: one[1])

    async def next_url(self, endpoint: Endpoint) -> str | None:
        """As Endpoints.next_url."""
        found = await self._partitions.for_workspace(
            endpoint.workspace, lambda n: self._at(n).next_url(endpoint)
        )
        return next((url for url in found if url), None)

    async def restore(
        self, endpoint: str, workspace: str, event_id: str, now_ms: int, retention_ms: int = 604_800_000
    ) -> bool:
        """As Endpoints.restore."""
        return any(
            await self._partitions.for_workspace(
                workspace, lambda n: self._at(n).restore(endpoint, workspace, event_id, now_ms, retention_ms)
            )
        )


def together(records: Sequence[Endpoint]) -> Endpoint:
    """One endpoint of its records in several partitions: counts are added; of states and times the most troubled is taken.

    It is stopped if it is in all of them: elsewhere something is still sent, until the command is repeated.
    """
    if len(records) == 1:
        return records[0]
    newest = max(records, key=lambda one: one.last_failed_ms or 0)
    windows = [one.window for one in records if one.window is not None]
    due = [one.oldest_due_ms for one in records if one.oldest_due_ms is not None]
    down = [one.down_since_ms for one in records if one.down_since_ms]
    stopped = [one.stopped_ms for one in records if one.stopped_ms is not None]
    late = [one.late_since_ms for one in records if one.late_since_ms is not None]
    return replace(
        newest,
        waiting=sum(one.waiting for one in records),
        in_flight=sum(one.in_flight for one in records),
        window=sum(windows) if windows else None,
        failures=max(one.failures for one in records),
        p95_ms=max((one.p95_ms for one in records if one.p95_ms is not None), default=None),
        paused_until_ms=max(one.paused_until_ms for one in records),
        stopped_ms=min(stopped) if len(stopped) == len(records) else None,
        oldest_due_ms=min(due) if due else None,
        down_since_ms=min(down) if down else 0,
        now_ms=max(one.now_ms for one in records),
        is_held=any(one.is_held for one in records),
        late_since_ms=min(late) if late else None,
    )
