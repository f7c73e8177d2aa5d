"""What stands before the bytes to POST in a callback's body key: its URL, and behind tabs the trace of its status change.

Neither a URL nor a trace has a tab or a line end. lua/move.lua reads and writes the URL as well.
"""


def first_line(url: str, trace: tuple[str, ...]) -> bytes:
    """The line of a callback with a trace; without one it is the URL alone."""
    return "\t".join((url, *trace)).encode()


def divided(line: str) -> tuple[str, tuple[str, ...]]:
    """The URL, and the trace: traceparent, tracestate."""
    url, *trace = line.split("\t")
    return url, tuple(trace[:2])


def url_of(body: bytes) -> str:
    """The URL in what the key holds."""
    return divided(body.partition(b"\n")[0].decode(errors="replace"))[0]
