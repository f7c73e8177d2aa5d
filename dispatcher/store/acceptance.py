"""Divides what intake has accepted, so that no call of accept has too many arguments."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dispatcher.store.arguments import OF_EACH_SKIPPED, OF_EACH_WORKSPACE, ToAccept
from dispatcher.store.command_parts import MOST_LISTED, in_parts


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What one call of accept is given."""

    revisions: Mapping[str, str]
    skipped: Sequence[tuple[str, str]]
    callbacks: ToAccept

    def parts(self) -> Sequence["Acceptance"]:
        """Itself, or parts that fit into one call each, in the order in which they are to be accepted.

        Entries without callbacks come last: they leave the queue when what they say about their messages is kept.
        """
        named = OF_EACH_WORKSPACE * len(self.revisions) + OF_EACH_SKIPPED * len(self.skipped)
        if self.callbacks.size + named <= MOST_LISTED:
            return [self]
        parts = [
            Acceptance(self._of({workspace for workspace, _ in some.messages()}), [], some)
            for some in self.callbacks.parts()
        ]
        for skipped in in_parts(self.skipped, lambda _: OF_EACH_SKIPPED + OF_EACH_WORKSPACE):
            revisions = self._of({workspace for _, workspace in skipped})
            parts.append(Acceptance(revisions, skipped, ToAccept()))
        return parts

    def without(self, left: Collection[int]) -> "Acceptance":
        """The same without some entries with callbacks, as ToAccept.without."""
        return replace(self, callbacks=self.callbacks.without(left))

    def _of(self, workspaces: Collection[str]) -> dict[str, str]:
        return {name: revision for name, revision in self.revisions.items() if name in workspaces}
