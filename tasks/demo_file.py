"""The demo's example file: its times moved to now, its URLs to receivers on this machine."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILE = Path(__file__).parent / "commands" / "demo.jsonl"
"""Some of its lines are invalid on purpose, to show what is rejected."""
FILE_PRESENT = datetime(2026, 6, 9, 13, 5, tzinfo=UTC)
"""The moment the file's timestamps lead up to; the demo shifts them so that this moment is now."""

WORKSPACES = {
    "acme": ("zeckta", "https://hooks.acme.example/messages"),
    "bluefin": ("sendexa", "https://api.bluefin.example/sms"),
    "cedar": ("zeckta", "https://hooks.cedar.example/callbacks"),
}

_HOST = re.compile(rb"https://([a-z.]+\.example)")
_STAMP = re.compile(rb'"(timestamp|acceptedAt)":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)((?:\.\d+)?Z?)"')


def lines() -> list[bytes]:
    """The lines of the file, with timestamps that lead up to now."""
    shift = datetime.now(UTC) - FILE_PRESENT
    return [_moved(line, shift) for line in FILE.read_bytes().splitlines()]


def hosts(texts: Iterable[bytes]) -> list[str]:
    """The customers' hosts in the lines and in the workspaces' URLs, each once, sorted."""
    urls = [*texts, *(url.encode() for _, url in WORKSPACES.values())]
    return sorted({host.decode() for url in urls for host in _HOST.findall(url)})


def localised(text: bytes, ports: Mapping[str, int]) -> bytes:
    """The text with each host replaced by 127.0.0.1 and the host's port."""
    return _HOST.sub(lambda m: b"http://127.0.0.1:%d" % ports[m.group(1).decode()], text)


def _moved(line: bytes, shift: timedelta) -> bytes:
    def moved(match: re.Match[bytes]) -> bytes:
        old = datetime.fromisoformat(match.group(2).decode()).replace(tzinfo=UTC)
        new = (old + timedelta(seconds=int(shift.total_seconds()))).strftime("%Y-%m-%dT%H:%M:%S")
        return b'"%b":"%b%b"' % (match.group(1), new.encode(), match.group(3))

    return _STAMP.sub(moved, line)
