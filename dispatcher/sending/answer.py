"""Reads one HTTP/1 answer from bytes as they arrive, within bounds (RFC 9112). No I/O.

The status counts once a final head was read completely, however untidy it is. An answer that deviates from the RFC
costs only the connection: it is not reused, so that no byte of one answer is taken for the next one's.
"""

import functools
import re
from typing import NamedTuple

import msgspec

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes that are read before the end of the final head, including all 1xx before it."""

MAX_ANSWER_BYTES = 16 * 1024
"""Most bytes that are read after the head, including the framing of chunks.

A server sends about this much before it waits for the first acknowledgement (RFC 6928). The ledger keeps 256 bytes of
it; the rest is read only so that the connection can be reused.
"""

MAX_PIECES = 512
"""Most reads, 1xx and chunks of one answer: each costs as much time as some hundred bytes, however short it is."""

MAX_LINES = 256
"""Most header lines that are parsed."""

MAX_CACHED_BYTES = 1024
"""Longest head whose framing is cached."""

TIDY_HEAD = re.compile(
    rb"HTTP/1\.(\d) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n"
    rb"(?:[!#$%%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n){0,%d}+\r\n" % MAX_LINES
)
"""RFC 9112 §4 and §5. Many servers leave out the blank before an empty reason, so that is accepted."""

STATUS = re.compile(rb"HTTP/1\.(\d)[ \t]+([1-9]\d\d)(?=[ \t\r\n])")
"""RFC 9112 §4, with any blanks. The name is case-sensitive, and other major versions are framed differently."""

STATUS_BYTES = 40
"""A status must have come within this many bytes."""

HEAD_END = re.compile(rb"\n\r?\n")
"""An empty line. A line feed alone also ends a line (RFC 9112 §2.2)."""

FIELD = re.compile(rb"\n([^:\n]++):([^\n]*)")
FRAMING = re.compile(rb"\n(content-length|transfer-encoding|connection|keep-alive)[ \t]*:[ \t]*([^\r\n]*)")
KEEP_ALIVE = re.compile(rb"(timeout|max)[ \t]*=[ \t]*\"?(\d{1,9})")
CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n")


ANSWER_BYTES = 256
"""How much of the body of an answer other than 2xx the ledger keeps."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A complete final head, and the beginning of its body, which is not decompressed."""

    status: int
    head: bytes = b""
    body: bytes = b""
    """At most 16 KiB."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names and values, in order of arrival."""
        return [(name.strip(), value.strip()) for name, value in FIELD.findall(self.head)]


class Body(NamedTuple):
    """How a body ends (RFC 9112 §6.3)."""

    length: int | None = None
    """None: it ends with the connection, unless it is chunked."""
    chunked: bool = False
    tidy: bool = True
    """Whether the connection can be reused: nothing contradicts itself, and the server will not close it (§9.3)."""
    unknown: bool = False
    """Whether its end cannot be determined."""
    keep_alive: float | None = None
    """For how many seconds the server says that it keeps an idle connection (`Keep-Alive`, RFC 2068 §19.7.1.1)."""


@functools.lru_cache(maxsize=1024)
def body_of(minor: bytes, status: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> Body:
    """Returns how a body ends, from the version's second digit, the status, and the fields that FRAMING finds."""
    given: dict[bytes, list[bytes]] = {
        b"content-length": [],
        b"transfer-encoding": [],
        b"connection": [],
        b"keep-alive": [],
    }
    for name, value in fields:
        given[name] += [item.strip() for item in value.split(b",")]
    lengths, codings, options, promises = given.values()
    promised = dict(KEEP_ALIVE.findall(b",".join(promises)))
    keep = float(promised[b"timeout"]) if b"timeout" in promised else None
    persists = b"close" not in options and (minor > b"0" or (b"keep-alive" in options and not codings))
    persists = persists and promised.get(b"max") != b"0"
    coding = [one for one in codings if one not in (b"", b"identity")][-1:]
    if status in (b"204", b"304"):
        tidy = persists and not codings and lengths in ([], [b"0"])
        return Body(0, tidy=tidy, keep_alive=keep)
    if coding:
        tidy = persists and codings == [b"chunked"] and not lengths
        return Body(chunked=coding == [b"chunked"], tidy=tidy, keep_alive=keep)
    if lengths:
        length = _one_number(lengths)
        tidy = persists and not codings and len(lengths) == 1
        return Body(length, tidy=tidy, unknown=length is None, keep_alive=keep)
    return Body(unknown=status == b"101")


class Reader:
    """Reads one answer from the bytes that it is fed, until it is `done` or nothing more comes."""

    head_only = False
    """Whether no body follows the head: a proxy's answer to CONNECT has none (RFC 9110 §9.3.6)."""
    answer: Answer | None = None
    """Set once a final head was read, with as much of the body as has come."""
    done = False
    """Whether nothing more needs to be read."""
    reusable = False
    """Whether the connection may be reused."""
    problem = ""
    """Why these bytes are not a valid answer, in words."""
    keep_alive: float | None = None
    """For how many seconds the server says that it keeps the connection."""

    _rest = _chunks = b""
    _at = _searched = _pieces = 0
    _tidy = True
    _body = Body()

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self._pieces > 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, but no more of them than the bounds allow."""
        tidy = None if self._pieces else TIDY_HEAD.match(data, 0, MAX_HEAD_BYTES)
        self._pieces += 1
        if tidy and tidy[2] >= b"200":
            end = tidy.end()
            self._take(tidy, data[:end], data[end:])
            if self.done:
                return
        else:
            self._rest += data[: MAX_HEAD_BYTES + MAX_ANSWER_BYTES]
            while self.answer is None and self._pieces <= MAX_PIECES and self._read_head():
                self._pieces += 1
        if self.answer and not self.done:
            self._read_body(self.answer)
        if self._pieces > MAX_PIECES:
            self._stop(f"the answer's head came in more than {MAX_PIECES} pieces")

    def _stop(self, problem: str = "") -> None:
        self.done = True
        self.problem = self.problem or problem

    # Heads: the final one, and those of 1xx before it.

    def _read_head(self) -> bool:
        """Takes the next head if it is complete; returns whether it was."""
        end = self._head_end()
        if not end or end > MAX_HEAD_BYTES:
            if len(self._rest) > MAX_HEAD_BYTES:
                self._stop(f"the answer's head is longer than {MAX_HEAD_BYTES} bytes")
            return False
        head, self._at = self._rest[self._at : end], end
        found = TIDY_HEAD.fullmatch(head)
        if not found:
            found, self._tidy, head = STATUS.match(head), False, _tidied(head)
        assert found  # _head_end has checked it
        if found[2] >= b"200" or found[2] == b"101":
            self._take(found, head, self._rest[end:])
        return True

    def _head_end(self) -> int:
        """Where the next head ends; 0 while it is incomplete. Skips empty lines before it."""
        if self._rest[self._at : self._at + 1] in (b"\r", b"\n"):
            self._at = len(self._rest) - len(self._rest[self._at :].lstrip(b"\r\n"))
            self._tidy = False
        begins = self._rest[self._at : self._at + STATUS_BYTES]
        if not STATUS.match(begins) and not _may_be_status(begins):
            words = begins.split()[: 2 if begins.startswith(b"HTTP/") else 1]
            self._stop(f"the answer begins with {b' '.join(words)[:24]!r}, not with HTTP/1 and a status")
            return 0
        found = HEAD_END.search(self._rest, max(self._at, self._searched))
        if found:
            return found.end()
        self._searched = self._rest.rfind(b"\n")
        return 0

    def _take(self, found: re.Match[bytes], head: bytes, rest: bytes) -> None:
        """Takes the final head."""
        minor, status = found.groups()
        fields = tuple(FRAMING.findall(head.lower()))
        find = body_of if len(head) <= MAX_CACHED_BYTES else body_of.__wrapped__
        body = find(minor, status, fields)
        if self.head_only:
            body, self._tidy = Body(0), True
        self.answer, self.keep_alive = Answer(int(status), head, rest), body.keep_alive
        if len(rest) == body.length and len(rest) <= MAX_ANSWER_BYTES:
            self.done, self.reusable = True, self._tidy and body.tidy
        else:
            self._body, self._rest, self._at = body, rest, 0

    # The body.

    def _read_body(self, answer: Answer) -> None:
        length, chunked, _, unknown, _ = self._body
        over = len(self._rest) > MAX_ANSWER_BYTES
        if over:
            self._rest, self._tidy = self._rest[:MAX_ANSWER_BYTES], False
        body = self._read_chunks() if chunked else self._rest[:length]
        self.answer = Answer(answer.status, answer.head, body)
        if length is not None and len(self._rest) >= length:
            self._end_at(length)
        if over or unknown:
            self.done = True

    def _read_chunks(self) -> bytes:
        """Takes the complete chunks (RFC 9112 §7.1). Returns all data so far, also that of an incomplete chunk."""
        while self._pieces <= MAX_PIECES and (line := self._chunk_line()):
            stop = line.end() + int(line[1], 16)
            if stop == line.end():
                self._read_last(stop)
                break
            data = self._rest[line.end() : stop]
            if self._rest[stop : stop + 2] != b"\r\n":
                if len(self._rest) >= stop + 2:
                    self._stop()
                return self._chunks + data
            self._chunks += data
            self._at = stop + 2
            self._pieces += 1
        return self._chunks

    def _chunk_line(self) -> re.Match[bytes] | None:
        """The line before the next chunk; None while it is incomplete."""
        end = self._rest.find(b"\n", self._at) + 1
        line = CHUNK_LINE.fullmatch(self._rest, self._at, end) if end else None
        if end and not line:
            self._stop()
        return line

    def _read_last(self, at: int) -> None:
        """Reads what follows the last chunk: an empty line, or trailers, whose end is not worth waiting for."""
        tail = self._rest[at : at + 2]
        if tail == b"\r\n":
            self._end_at(at + 2)
        elif tail not in (b"", b"\r"):
            self._stop()

    def _end_at(self, end: int) -> None:
        self.reusable = self._tidy and self._body.tidy and len(self._rest) == end
        self.done = True


def _may_be_status(begins: bytes) -> bool:
    """Whether these bytes may still become a status line."""
    return len(begins) < STATUS_BYTES and b"\n" not in begins and b"HTTP/1.".startswith(begins[:7])


def _tidied(head: bytes) -> bytes:
    """Returns a head with one line for each field: folded lines are joined (RFC 9112 §5.2).

    Lines beyond MAX_LINES are dropped. Lines that continue the status line are joined to it, and so ignored (§2.2).
    """
    lines = head.replace(b"\r\n", b"\n").split(b"\n", MAX_LINES)[:MAX_LINES]
    return re.sub(rb"\n[ \t]+", b" ", b"\n".join(lines))


def _one_number(lengths: list[bytes]) -> int | None:
    """The length that all of them give (RFC 9110 §8.6); None if they differ, or one is not a length."""
    if not all(one.isdigit() and len(one) < 19 for one in lengths):
        return None
    numbers = {int(one) for one in lengths}
    return numbers.pop() if len(numbers) == 1 else None
