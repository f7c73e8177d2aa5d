"""What an archive keeps of a callback that was erased: so much that its eventId is known, and nothing else."""

from hashlib import sha1


def fingerprint(id_: str) -> int:
    """Of an eventId: 64 bits, as a whole number with a sign."""
    return int.from_bytes(sha1(id_.encode(), usedforsecurity=False).digest()[:8], signed=True)
