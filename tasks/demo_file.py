"""The demo's example file: brought to now, and to receivers on this machine."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILE = Path(__file__).parent / "commands" / "demo.jsonl"
"""Some of its lines are broken, to show what is rejected."""
FILE_PRESENT = datetime(2026, 6, 9, 13, 5, tzinfo=UTC)
"""The moment the file's timestamps lead up to; the demo moves them so that it is now."""

WORKSPACES = {
    "acme": ("zeckta", "https://hooks.acme.example/messages"),
    "bluefin": ("sendexa", "https://api.bluefin.example/sms"),
    "cedar": ("zeckta", "https://hooks.cedar.example/callbacks"),
}

_HOST = re.compile(rb"https://([a-z.]+\.example)")
_STAMP = re.compile(rb'"(timestamp|acceptedAt)":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)((?:\.\d+)?Z?)"')


def lines() -> list[bytes]:
    """The lines of the file, with times that lead up to now."""
    shift = datetime.now(UTC) - FILE_PRESENT
    return [_moved(line, shift) for line in FILE.read_bytes().splitlines()]


def hosts(texts: Iterable[bytes]) -> list[str]:
    """The customers' hosts in lines and in the workspaces' URLs, each once."""
    urls = [*texts, *(url.encode() for _, url in WORKSPACES.values())]
    return sorted({host.decode() for url in urls for host in _HOST.findall(url)})


def localised(text: bytes, ports: Mapping[str, int]) -> bytes:
    """A text whose hosts are this machine, each at a port of its own."""
    return _HOST.sub(lambda m: b"http://127.0.0.1:%d" % ports[m.group(1).decode()], text)


def _moved(line: bytes, shift: timedelta) -> bytes:
    def moved(match: re.Match[bytes]) -> bytes:
        old = datetime.fromisoformat(match.group(2).decode()).replace(tzinfo=UTC)
        new = (old + timedelta(seconds=int(shift.total_seconds()))).strftime("%Y-%m-%dT%H:%M:%S")
        return b'"%b":"%b%b"' % (match.group(1), new.encode(), match.group(3))

    return _STAMP.sub(moved, line)
