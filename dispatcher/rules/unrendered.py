"""What stands in place of a callback's body that could not be rendered because of its subscription's terms: why."""

_MARK = b"!"
"""No JSON object begins so."""

NOWHERE = "https://unreadable.invalid/"
"""In place of a callback URL that cannot be read (RFC 2606 §2: no such name exists)."""


def unrendered(why: str) -> bytes:
    """What the callback has instead of a body."""
    return _MARK + why.encode(errors="replace")


def why_unrendered(body: bytes) -> str | None:
    """Why there is no body; None for a body."""
    return body[1:].decode(errors="replace") if body.startswith(_MARK) else None
