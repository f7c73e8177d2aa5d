"""What counts as an answer, what of it is read, and when its connection may be used again. No I/O."""

import gc
import sys
from collections.abc import Callable, Iterable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.sending.answer import (
    MAX_ANSWER_BYTES,
    MAX_HEAD_BYTES,
    MAX_LINES,
    MAX_PIECES,
    Answer,
    Reader,
    body_of,
)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
READ_BYTES = 64 * 1024
"""What a loop hands over at once."""


def read(*pieces: bytes, head_only: bool = False) -> Reader:
    """A reader that was fed until it had enough, as a connection does it."""
    reader = Reader()
    reader.head_only = head_only
    for piece in pieces:
        if not reader.done:
            reader.feed(piece)
    return reader


def answer_of(reader: Reader) -> Answer:
    """What was read; there must be an answer."""
    assert reader.answer, reader.problem
    return reader.answer


# ---- the status line


@pytest.mark.parametrize(
    "line",
    [
        b"RTSP/1.0 200 OK",
        b"ICY 200 OK",
        b"SIP/2.0 200 OK",
        b"ICE/1.0 200 OK",
        b"http/1.1 200 OK",
        b"Http/1.1 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/2 200",
        b"HTTP/3 200",
        b"HTTP/0.9 200 OK",
        b"HTTP/1 200 OK",
        b"HTTP/1.10 200 OK",
        b"HTTP/01.1 200 OK",
        b"HTTP/1.x 200 OK",
        b"HTTP/1,1 200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 OK",
        b"HTTP/1.1200 OK",
        b"HTTP/1.1 20",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 2OO OK",
        b"HTTP/1.1 2 00 OK",
        b"HTTP/1.1 -200 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 000 OK",
        "HTTP/1.1 ２００ OK".encode(),
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 200\x0bOK",
        b"HTTP/1.1 \n200 OK",
        b" HTTP/1.1 200 OK",
        b"\xef\xbb\xbfHTTP/1.1 200 OK",
        b"POST /hook HTTP/1.1",
        b"<html>200 OK</html>",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
    ids=repr,
)
def test_what_has_no_status_line_of_http_1_is_no_answer(line: bytes) -> None:
    """RFC 9112 §4: `HTTP/1.` and a digit, case-sensitive, a blank, three digits that begin with 1 to 9, a blank."""
    reader = read(line + b"\r\n" + LENGTH + b"\r\nok")
    assert (None, True, False) == (reader.answer, reader.done, reader.reusable)
    assert "not with HTTP/1 and a status" in reader.problem


@pytest.mark.parametrize(
    "begins", [b"S", b"SSH-2.0", b"\x00", b"HTTP/2", b"http", b"HTTP/1.1" + b" " * 40], ids=repr
)
def test_what_can_become_no_answer_is_not_waited_for(begins: bytes) -> None:
    """The first bytes tell, without a line end."""
    assert read(begins).done


@pytest.mark.parametrize("line", [b"HTTP/1.1 2", b"HTTP/1.1 200", b"H", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
def test_what_can_become_an_answer_is_waited_for(line: bytes) -> None:
    """Part of a head is neither an answer nor a failure."""
    reader = read(line)
    assert (None, False) == (reader.answer, reader.done)


@pytest.mark.parametrize(
    ("line", "status", "reusable"),
    [
        (b"HTTP/1.1 200 OK", 200, True),
        (b"HTTP/1.1 200 ", 200, True),
        (b"HTTP/1.1 200", 200, True),
        (b"HTTP/1.1 200 Z\xc3\xbcrich 1\t2", 200, True),
        (b"HTTP/1.2 299 OK", 299, True),
        (b"HTTP/1.9 200 OK", 200, True),
        (b"HTTP/1.1 600 What", 600, True),
        (b"HTTP/1.1 999 What", 999, True),
        (b"HTTP/1.0 200 OK", 200, False),
        (b"HTTP/1.1  200  OK", 200, False),
        (b"HTTP/1.1\t200\tOK", 200, False),
        (b"HTTP/1.1 200 O\0K", 200, False),
        (b"HTTP/1.1 200 O\rK", 200, False),
        (b"\r\nHTTP/1.1 200 OK", 200, False),
        (b"\n\r\n\r\n\nHTTP/1.1 200 OK", 200, False),
    ],
    ids=repr,
)
def test_a_status_line_of_http_1_counts(line: bytes, status: int, reusable: bool) -> None:
    """With or without a reason; with other blanks, or behind empty lines, the connection is not used again."""
    reader = read(line + b"\r\n" + LENGTH + b"\r\nok")
    assert (status, b"ok", reusable) == (answer_of(reader).status, answer_of(reader).body, reader.reusable)


def test_a_problem_can_be_shown_and_quotes_little() -> None:
    """What is quoted of a stranger's bytes is printable, and no more than its first word, as it may echo our own URL."""
    problem = read(b"\x1b[2J\xff POST /hook?token=secret\r\n\r\n").problem
    assert problem.isprintable()
    assert problem.isascii()
    assert "secret" not in read(b"POST /hook?token=secret HTTP/1.1\r\n\r\n").problem
    assert "'RTSP/1.0'" in read(b"RTSP/1.0 200 OK\r\n\r\n").problem
    assert "'HTTP/1.1 2000'" in read(b"HTTP/1.1 2000 OK\r\n\r\n").problem


# ---- untidy heads


UNTIDY = {
    "folded": b"X: a\r\n b\r\n" + LENGTH,
    "folded by a tab": b"X: a\r\n\tb\r\n" + LENGTH,
    "a fold that is empty": b"X: a\r\n \r\n" + LENGTH,
    "a folded length": b"Content-Length:\r\n 2\r\n",
    "a blank before a colon": b"X : a\r\n" + LENGTH,
    "a blank before the length's colon": b"Content-Length : 2\r\n",
    "a blank before the first field": b" X: a\r\n" + LENGTH,
    "a line without a colon": b"no colon\r\n" + LENGTH,
    "a field without a name": b": a\r\n" + LENGTH,
    "a name that is no token": b"X(y): a\r\n" + LENGTH,
    "a NUL": b"X: a\0b\r\n" + LENGTH,
    "an escape": b"X: a\x1bb\r\n" + LENGTH,
    "a bare carriage return": b"X: a\rb\r\n" + LENGTH,
    "a bare line feed": b"X: a\n" + LENGTH,
    "the length twice": LENGTH + LENGTH,
    "the length as a list": b"Content-Length: 2, 2\r\n",
    "the length with zeros too": LENGTH + b"Content-Length: 02\r\n",
    "identity": b"Transfer-Encoding: identity\r\n" + LENGTH,
    "no coding at all": b"Transfer-Encoding: \r\n" + LENGTH,
}


@pytest.mark.parametrize("name", UNTIDY)
@pytest.mark.parametrize("status", [200, 503])
def test_an_untidy_head_counts_and_costs_its_connection(name: str, status: int) -> None:
    """Status, Retry-After and body are read, and the connection is not used again."""
    fields = UNTIDY[name] + b"Retry-After: 7\r\n"
    reader = read(b"HTTP/1.1 %d X\r\n%b\r\nok" % (status, fields))
    found = answer_of(reader)
    assert (status, b"ok", True, False) == (found.status, found.body, reader.done, reader.reusable)
    assert (b"Retry-After", b"7") in found.headers


@pytest.mark.parametrize(
    "length",
    [b"-1", b"+2", b"two", b"", b"2;", b"2 2", b"0x2", b"2, 3", b"2\r\nContent-Length: 3", b"9" * 5000],
)
@pytest.mark.parametrize("status", [200, 503])
def test_a_length_that_is_none_counts_and_is_not_waited_for(status: int, length: bytes) -> None:
    """Nobody can say where such a body ends: its status stands, and reading ends (RFC 9112 §6.3)."""
    reader = read(b"HTTP/1.1 %d X\r\nContent-Length: %b\r\n\r\nok" % (status, length))
    found = answer_of(reader)
    assert (status, b"ok", True, False) == (found.status, found.body, reader.done, reader.reusable)


def test_folded_lines_are_unfolded() -> None:
    """RFC 9112 §5.2: a line that begins with a blank goes on with the one before; on the status line it is dropped."""
    found = answer_of(read(OK + b" A: 1\r\nX: a\r\n\t b\r\n  c\r\nY : d \r\n" + LENGTH + b"\r\nok"))
    assert [(b"X", b"a b c"), (b"Y", b"d"), (b"Content-Length", b"2")] == found.headers


def test_lines_beyond_the_bound_are_left_out() -> None:
    """A status with very many headers counts; the first are read, and the connection is not used again."""
    reader = read(OK + LENGTH + b"X: y\r\n" * 2 * MAX_LINES + b"\r\nok")
    assert (200, b"ok", False) == (answer_of(reader).status, answer_of(reader).body, reader.reusable)
    assert len(answer_of(reader).headers) < MAX_LINES


def test_tidy_headers_come_as_they_are() -> None:
    """Names keep their case, values their bytes."""
    found = answer_of(read(OK + b"X-a:1\r\nSet-Cookie: \xe4 \r\nSet-Cookie:\tb=2\r\n" + LENGTH + b"\r\nok"))
    assert [
        (b"X-a", b"1"),
        (b"Set-Cookie", b"\xe4"),
        (b"Set-Cookie", b"b=2"),
        (b"Content-Length", b"2"),
    ] == found.headers


# ---- where a body ends


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (OK + LENGTH + b"\r\nok", b"ok"),
        (OK + b"content-LENGTH:2\r\nConnection: Keep-Alive\r\n\r\nok", b"ok"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
        (b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + b"\r\nok", b"ok"),
        (OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (
            OK + CHUNKED.upper() + b"\r\n1\r\no\r\n0A;x=y\r\n" + b"k" * 10 + b"\r\n00\r\n\r\n",
            b"o" + b"k" * 10,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + LENGTH + b"\r\nok", b"ok"),
        (b"HTTP/1.1 103 Hints\r\nContent-Length: 9\r\n\r\n" + OK + LENGTH + b"\r\nok", b"ok"),
    ],
)
def test_a_tidy_answer_leaves_its_connection_to_the_next(content: bytes, body: bytes) -> None:
    """What was read to its end, exactly as the RFC writes it, costs nothing; in one piece, or byte by byte."""
    for pieces in ([content], [bytes([byte]) for byte in content]):
        reader = read(*pieces)
        assert (body, True, True) == (answer_of(reader).body, reader.done, reader.reusable)


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (OK + LENGTH + b"Connection: close\r\n\r\nok", b"ok"),
        (OK + LENGTH + b"Connection: keep-alive, Close\r\n\r\nok", b"ok"),
        (OK + LENGTH + b"Connection: keep-alive\r\nConnection: close\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\nok", b"ok"),
        (OK + LENGTH + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (OK + CHUNKED + LENGTH + b"\r\n3\r\nok!\r\n0\r\n\r\n", b"ok!"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (OK + CHUNKED + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: trailer\r\n\r\n", b"ok"),
        (OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nHTTP/1.1 500 No\r\n\r\n", b"ok"),
        (OK + CHUNKED + b"\r\n2\r\nokX2\r\nok\r\n0\r\n\r\n", b"ok"),
        (OK + CHUNKED + b"\r\n2\nok\r\n0\r\n\r\n", b""),
        (OK + CHUNKED + b"\r\n2 \r\nok\r\n0\r\n\r\n", b""),
        (OK + CHUNKED + b"\r\n-2\r\nok\r\n0\r\n\r\n", b""),
        (OK + CHUNKED + b"\r\n0x2\r\nok\r\n0\r\n\r\n", b""),
        (OK + CHUNKED + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n", b""),
        (OK + LENGTH + b"\r\nok" + OK + LENGTH + b"\r\nok", b"ok"),
        (OK + LENGTH + b"\r\nok\r\n", b"ok"),
        (OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\nok", b""),
        (b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nxyz", b"xyz"),
        (b"HTTP/1.1 100 X\r\n X: folded\r\n\r\n" + OK + LENGTH + b"\r\nok", b"ok"),
    ],
)
def test_in_doubt_a_connection_is_not_used_again(content: bytes, body: bytes) -> None:
    """The answer stands, what is behind it is nobody's, and nothing more is waited for."""
    reader = read(content)
    assert (body, True, False) == (answer_of(reader).body, reader.done, reader.reusable)


@pytest.mark.parametrize(
    "fields",
    [b"", b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked, gzip\r\n" + LENGTH],
    ids=repr,
)
def test_without_a_length_a_body_ends_with_its_connection(fields: bytes) -> None:
    """RFC 9112 §6.3: so it is read until that closes, and kept as it came."""
    reader = read(OK + fields + b"\r\nab", b"cd")
    assert (b"abcd", False, False) == (answer_of(reader).body, reader.done, reader.reusable)


@pytest.mark.parametrize("fields", [b"", LENGTH, CHUNKED, b"Connection: close\r\n", b"X : y\r\n"])
def test_a_head_alone_is_the_answer_to_connect(fields: bytes) -> None:
    """What frames a body does not count there, and what follows is the tunnel's (RFC 9110 §9.3.6)."""
    reader = read(OK + fields + b"\r\n", head_only=True)
    assert (200, True, True) == (answer_of(reader).status, reader.done, reader.reusable)
    assert not read(OK + fields + b"\r\nmore", head_only=True).reusable


contents = st.lists(
    st.sampled_from(
        [
            OK,
            LENGTH,
            CHUNKED,
            b"\r\n",
            b"\n",
            b"HTTP/1.1 100 X\r\n\r\n",
            b"2\r\nok\r\n",
            b"0\r\n\r\n",
            b"ok",
            b" x: y\r\n",
        ]
    )
    | st.binary(max_size=8),
    max_size=10,
).map(b"".join)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(content=st.just(OK) | contents | contents.map(lambda rest: OK + rest), data=st.data())
def test_an_answer_is_the_same_however_it_is_cut(content: bytes, data: st.DataObject) -> None:
    """Whole or in pieces the same bytes have the same status and headers, and pieces never read more than the whole."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    whole, cut = read(content), read(*(piece for piece in pieces if piece))
    assert (whole.answer is None, whole.done, not whole.problem) == (
        cut.answer is None,
        cut.done,
        not cut.problem,
    )
    if whole.answer and cut.answer:
        assert (whole.answer.status, whole.answer.head) == (cut.answer.status, cut.answer.head)
        assert whole.answer.body.startswith(cut.answer.body)


# ---- bounds


def calls_to_read(pieces: Iterable[bytes]) -> tuple[int, Reader]:
    """How many functions, Python's and C's, were called to read this."""
    reader, count = Reader(), 0
    body_of.cache_clear()

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    for piece in pieces:
        if reader.done:
            break
        gc.disable()  # what it would finalize now is not this reader's
        sys.setprofile(counted)
        reader.feed(piece)
        sys.setprofile(None)
        gc.enable()
    return count, reader


def in_reads(content: bytes) -> list[bytes]:
    """As a loop reads what comes fast."""
    return [content[at : at + READ_BYTES] for at in range(0, len(content), READ_BYTES)]


FLOODS: dict[str, Callable[[int], list[bytes]]] = {
    "a long body": lambda n: in_reads(OK + b"Content-Length: 1000000000\r\n\r\n" + b"x" * n),
    "a body without end": lambda n: in_reads(OK + b"\r\n" + b"x" * n),
    "chunks of a byte": lambda n: in_reads(OK + CHUNKED + b"\r\n" + b"1\r\nx\r\n" * n),
    "a long chunk": lambda n: in_reads(OK + CHUNKED + b"\r\nffffffff\r\n" + b"x" * n),
    "chunks with extensions": lambda n: in_reads(OK + CHUNKED + b"\r\n" + b"1;a=b\r\nx\r\n" * n),
    "one long extension": lambda n: in_reads(OK + CHUNKED + b"\r\n1;" + b"x" * n),
    "trailers": lambda n: in_reads(OK + CHUNKED + b"\r\n0\r\n" + b"X: y\r\n" * n),
    "a body in drops": lambda n: [OK + b"\r\n"] + [b"x"] * n,
    "chunks in drops": lambda n: [OK + CHUNKED + b"\r\n"] + [b"1", b"\r\n", b"x", b"\r\n"] * n,
    "an untidy length": lambda n: in_reads(OK + LENGTH * 2 + b"\r\n" + b"x" * n),
    "a long header": lambda n: in_reads(OK + b"X: " + b"x" * n),
    "many headers": lambda n: in_reads(OK + b"a:\n" * n),
    "many headers and their end": lambda n: in_reads(OK + b"a:\n" * 20_000 + b"\r\n" + b"x" * n),
    "many folds": lambda n: in_reads(OK + b"a: b\r\n" + b" \r\n" * n),
    "carriage returns": lambda n: in_reads(OK + b"a: b" + b"\r" * n),
    "empty lines": lambda n: in_reads(b"\r\n" * n),
    "a long reason": lambda n: in_reads(b"HTTP/1.1 200 " + b"x" * n),
    "a head in drops": lambda n: [OK] + [b"x"] * n,
    "1xx": lambda n: in_reads(b"HTTP/1.1 100 X\r\n\r\n" * n),
    "1xx in reads": lambda n: [b"HTTP/1.1 100 X\r\n\r\n"] * n,
}


@pytest.mark.parametrize("name", FLOODS)
def test_what_an_answer_costs_is_bounded(name: str) -> None:
    """Ten times as much of a flood takes not one call more to read, and no flood takes many."""
    little, reader = calls_to_read(FLOODS[name](200_000))
    much, _ = calls_to_read(FLOODS[name](2_000_000))
    assert reader.done
    assert little == much
    assert much < 10 * MAX_PIECES
    assert not reader.reusable


@pytest.mark.parametrize("name", FLOODS)
def test_no_more_is_kept_than_the_bounds(name: str) -> None:
    """Of a flood the first 16 KiB behind the head stay, and the head's 64."""
    _, reader = calls_to_read(FLOODS[name](200_000))
    if reader.answer:
        assert len(reader.answer.body) <= MAX_ANSWER_BYTES
        assert len(reader.answer.head) <= MAX_HEAD_BYTES
    else:
        assert "the answer's head" in reader.problem


def test_a_head_at_the_limit_counts_and_one_byte_more_does_not() -> None:
    """The limit is the same in one read and in several."""
    padding = b"x" * (MAX_HEAD_BYTES - len(OK + b"X: \r\n" + LENGTH + b"\r\n"))
    for more, counts in ((b"", True), (b"x", False)):
        content = OK + b"X: " + padding + more + b"\r\n" + LENGTH + b"\r\nok"
        for pieces in ([content], [content[:9], content[9:]]):
            assert (read(*pieces).answer is not None) is counts


def test_a_body_at_the_limit_is_read_and_one_byte_more_costs_the_connection() -> None:
    """16 KiB behind the head are read to their end, frames and all."""
    for more, reusable in ((0, True), (1, False)):
        size = MAX_ANSWER_BYTES + more
        whole = read(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        assert (MAX_ANSWER_BYTES, reusable) == (len(answer_of(whole).body), whole.reusable)
        framed = size - len(b"3ff0\r\n" + b"\r\n0\r\n\r\n")
        chunked = read(OK + CHUNKED + b"\r\n%x\r\n" % framed + b"x" * framed + b"\r\n0\r\n\r\n")
        assert (framed, reusable) == (len(answer_of(chunked).body), chunked.reusable)


# ---- how long the server keeps the connection


@pytest.mark.parametrize(
    ("fields", "seconds", "reusable"),
    [
        (b"", None, True),
        (b"Keep-Alive: timeout=5\r\n", 5, True),
        (b"keep-alive: Timeout = 60 , max=99\r\n", 60, True),
        (b'Keep-Alive: max=1, timeout="75"\r\n', 75, True),
        (b"Keep-Alive: timeout=5, max=0\r\n", 5, False),
        (b"Keep-Alive: timeout=0\r\n", 0, True),
        (b"Keep-Alive: timeout=-1\r\n", None, True),
        (b"Keep-Alive: timeout=soon, max=many\r\n", None, True),
        (b"Keep-Alive: 300\r\n", None, True),
        (b"Connection: close\r\nKeep-Alive: timeout=5\r\n", 5, False),
    ],
)
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
def test_a_server_says_how_long_it_keeps_the_connection(
    fields: bytes, seconds: float | None, reusable: bool, framing: bytes
) -> None:
    """`Keep-Alive` gives seconds, and how many requests more; what it says otherwise is ignored."""
    body = b"ok" if framing == LENGTH else b"2\r\nok\r\n0\r\n\r\n"
    reader = read(OK + fields + framing + b"\r\n" + body)
    assert (seconds, reusable) == (reader.keep_alive, reader.reusable)
