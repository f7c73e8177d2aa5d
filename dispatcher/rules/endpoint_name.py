"""The name of an endpoint."""

import msgspec


class EndpointName(msgspec.Struct, frozen=True):
    """Workspace and origin; `str` gives the text that stands in Redis and in logs, `parse` reads it."""

    workspace: str
    origin: str
    """scheme://host:port"""

    @classmethod
    def parse(cls, text: str) -> "EndpointName":
        """Reads the text: the workspace, a space, the origin. The origin is empty where there is no space."""
        workspace, _, origin = text.partition(" ")
        return cls(workspace, origin)

    def __str__(self) -> str:
        return f"{self.workspace} {self.origin}"
