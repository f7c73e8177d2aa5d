"""What stands in place of a callback's body that could not be rendered because of its subscription's terms: why."""

MARK = b"!"
"""No JSON object begins so."""

NOWHERE = "https://unreadable.invalid/"
"""In place of a callback URL that cannot be read (RFC 2606 §2: no such name exists)."""


def unrendered(why: str) -> bytes:
    """What the callback has instead of a body."""
    return MARK + why.encode(errors="replace")


def why_unrendered(body: bytes) -> str:
    """Why there is no body; `body` begins with MARK."""
    return body[len(MARK) :].decode(errors="replace")
