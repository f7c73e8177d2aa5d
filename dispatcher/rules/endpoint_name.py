"""The name of an endpoint."""

import msgspec


class EndpointName(msgspec.Struct, frozen=True):
    """Workspace, origin and subscription; `str` gives the text that stands in Redis and in logs, `parse` reads it."""

    workspace: str
    origin: str
    """scheme://host:port"""
    subscription: str = ""
    """Empty: the default one, or a URL that came with the status change."""

    @classmethod
    def parse(cls, text: str) -> "EndpointName":
        """Reads the text: `workspace origin`, or `workspace.subscription origin`; the origin is empty without a space."""
        of, _, origin = text.partition(" ")
        workspace, _, subscription = of.partition(".")
        return cls(workspace, origin, subscription)

    @property
    def owner(self) -> str:
        """Whose endpoint it is: `workspace`, or `workspace.subscription`."""
        return f"{self.workspace}.{self.subscription}" if self.subscription else self.workspace

    def __str__(self) -> str:
        return f"{self.owner} {self.origin}"


def callback_id(event_id: str, subscription: str) -> str:
    """The id of the callback that a status change causes for a subscription: `eventId`, or `eventId.subscription`.

    Neither an eventId nor the name of a subscription has a full stop.
    """
    return f"{event_id}.{subscription}" if subscription else event_id


def subscription_of(callback: str) -> str:
    """The subscription in the id of a callback; empty: the default one."""
    return callback.partition(".")[2]


def event_id_of(callback: str) -> str:
    """The eventId in the id of a callback."""
    return callback.partition(".")[0]
