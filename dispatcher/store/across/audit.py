"""The audit trail of an installation with several partitions: a change is kept in its workspace's home partition, or in partition 0."""

from dataclasses import dataclass, replace

from dispatcher.store.across.partitions import Partitions
from dispatcher.store.audit import Audit, AuditEntry, Facts, Who


@dataclass(frozen=True, slots=True)
class AuditAcross(Audit):
    """As Audit, of all partitions."""

    partitions: Partitions | None = None

    @classmethod
    def of(
        cls, partitions: Partitions, who: Who, retention_ms: int = 604_800_000, quiet: bool = False
    ) -> "AuditAcross":
        """The trail of an author."""
        return cls(
            partitions.calls(0),
            partitions.keys[0],
            partitions.url(0),
            who,
            retention_ms,
            quiet,
            None,
            partitions,
        )

    def by(self, who: Who) -> "AuditAcross":
        """The same trail for another author."""
        return replace(self, who=who)

    async def latest(
        self, limit: int, workspace: str | None = None, most: int | None = None, *, portal: bool = True
    ) -> list[AuditEntry]:
        """As Audit.latest."""
        asked = self._partitions
        if workspace:
            places = [asked.partitioning.home(workspace)]
            if asked.partitioning.previous is not None:
                places.append(asked.partitioning.previous)
        else:
            places = [*asked.all]
        found = await asked.everywhere(
            lambda n: self._at(n).latest(limit, workspace, most, portal=portal), places
        )
        every = [one for some in found.values() for one in some]
        return sorted(every, key=lambda one: -one.at_ms)[:limit]

    async def keep(
        self, what: str, workspace: str, before: Facts, after: Facts, *, is_quiet: bool = False
    ) -> bool:
        """As Audit.keep."""
        home = self._partitions.partitioning.home(workspace) if workspace else 0
        return await self._at(home).keep(what, workspace, before, after, is_quiet=is_quiet)

    @property
    def _partitions(self) -> Partitions:
        assert self.partitions
        return self.partitions

    def _at(self, n: int) -> Audit:
        of = self._partitions
        return Audit(of.calls(n), of.keys[n], of.url(n), self.who, self.retention_ms, self.quiet)
