"""What is recognized as a plain post is a part of what h11 reads, and read alike."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.api.plain_post import plain_head

KEY = b"key_0123456789ab." + b"aB-_" * 10 + b"abc"
LINES = (
    b"POST /v1/status-changes HTTP/1.1",
    b"Host: api",
    b"Authorization: Bearer " + KEY,
    b"Content-Length: 7",
    b"Content-Type: application/json",
)
BODY = b'{"x":1}'
PIECES = st.sampled_from(
    [
        *(
            b"",
            b" ",
            b"\t",
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\0",
            b"\x80",
            b":",
            b",",
            b"0",
            b"7",
            b"+",
            b"a",
            b"{",
        ),
        *(b"\r\nX: y", b"\r\nX:y \t", b"\r\n: z", b"\r\nHost: b", b"\r\nAuthorization: Bearer x"),
        *(b"\r\nContent-Length: 7", b"\r\nContent-Length: 1", b"\r\nTransfer-Encoding: chunked"),
        *(b"\r\nConnection: close", b"\r\nConnection: keep-alive", b"\r\nExpect: 100-continue"),
        *(b"\r\nUpgrade: h2c", b"\r\nContent-Encoding: gzip", b"\r\nTE: trailers"),
    ]
)


def request(lines: tuple[bytes, ...] = LINES) -> bytes:
    """A request of some lines."""
    return b"\r\n".join(lines) + b"\r\n\r\n" + BODY


def test_a_plain_post() -> None:
    """The key and the place of the body are found, whatever order and case the headers have."""
    for lines in (
        LINES,
        LINES[:1] + LINES[:0:-1],
        (LINES[0], *(one.swapcase() for one in LINES[1:2]), *LINES[2:]),
    ):
        head = plain_head(request(lines))
        assert head
        assert (KEY.decode(), BODY) == (head.key, request(lines)[head.body_at : head.end])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"post"),
        (b"POST", b"PUT"),
        (b"/v1", b"//v1"),
        (b"changes", b"changes?x"),
        (b"1.1", b"1.0"),
        (b"Host: api\r\n", b""),
        (b"Host:", b"Host :"),
        (b": api", b": a\nb: c"),
        (b": api", b": a\rb: c"),
        (b": api", b": a\0b"),
        (b": api", b": \xfcb"),
        (b": api", b": api\r\n b"),
        (b": api", b": api\r\n"),
        (b": api", b": " + b"a" * 9000),
        (b"Bearer", b"Basic"),
        (b"abc\r\n", b"ab\r\n"),
        (b"abc\r\n", b"abc,\r\n"),
        (b": 7", b": +7"),
        (b": 7", b": -7"),
        (b": 7", b": 7, 7"),
        (b": 7", b": 7_0"),
        (b": 7", b": 0x7"),
        (b": 7", b": "),
        (b": 7", b": 65537"),
        (b"application/json", b"application/json; charset=utf-16"),
        *(
            (b"Host", line + b"\r\nHost")
            for line in (b"Transfer-Encoding: chunked", b"Content-Length: 7", b"Host: b")
        ),
        *(
            (b"Host", line + b"\r\nHost")
            for line in (b"Authorization: x", b"Connection: close", b"Upgrade: h2c")
        ),
        *(
            (b"Host", line + b"\r\nHost")
            for line in (b"Expect: 100-continue", b"Content-Encoding: gzip", b"TE: x")
        ),
    ],
)
def test_what_is_not_plain(old: bytes, new: bytes) -> None:
    """Whatever is unusual in a head is for the full parser."""
    assert old in request()
    assert plain_head(request().replace(old, new, 1)) is None


def test_a_head_that_is_not_complete() -> None:
    """Part of a head is not recognized; a head without its whole body is."""
    raw = request()
    found = [bool(plain_head(raw[:length])) for length in range(len(raw) + 1)]
    body_at = len(raw) - len(BODY)
    assert [False] * body_at + [True] * (len(BODY) + 1) == found


@given(st.data())
def test_what_h11_reads_otherwise(data: st.DataObject) -> None:
    """A request with bytes put in, left out or replaced is not recognized, or h11 finds the same key and body in it."""
    raw = bytearray(request())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.sampled_from([start, start, start + 1, start + 2]))
        raw[start:end] = data.draw(PIECES | st.binary(max_size=2))
    head = plain_head(bytes(raw))
    if head:
        assert_read_alike(bytes(raw), head.key, head.body_at, head.end)


@given(st.lists(PIECES, max_size=4), st.permutations(LINES[1:]))
def test_other_lines(pieces: list[bytes], lines: list[bytes]) -> None:
    """The same with whole lines that matter."""
    raw = request((LINES[0], *lines[:2])) if not pieces else b"\r\n".join([LINES[0], *lines])
    raw = raw if not pieces else raw + b"".join(pieces) + b"\r\n\r\n" + BODY
    if head := plain_head(raw):
        assert_read_alike(raw, head.key, head.body_at, head.end)


def assert_read_alike(raw: bytes, key: str, body_at: int, end: int) -> None:
    """h11 reads one request from it, with this key and body, on a connection that stays open."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw[:end])
    asked = connection.next_event()
    assert isinstance(asked, h11.Request)
    assert (b"POST", b"/v1/status-changes", b"1.1") == (asked.method, asked.target, asked.http_version)
    headers = [(name, value) for name, value in asked.headers]
    assert [b"Bearer " + key.encode()] == [value for name, value in headers if name == b"authorization"]
    risky = {b"expect", b"upgrade", b"transfer-encoding", b"content-encoding"}
    assert not risky & {name for name, _ in headers}
    body = b""
    while len(raw) >= end and isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    if len(raw) >= end:
        assert isinstance(event, h11.EndOfMessage)
        assert (raw[body_at:end], b"") == (body, connection.trailing_data[0])
    assert not connection.they_are_waiting_for_100_continue
    assert connection.their_state in (h11.DONE, h11.SEND_BODY)


def test_a_head_is_read_in_one_pass() -> None:
    """Blanks are split in one way only. If there were nine, a hundred such lines would never be done with."""
    blank = b"X:" + 8 * b" "
    head = b"\r\n".join([*LINES, *[blank] * 100, b"Y: \x80"])
    assert plain_head(head + b"\r\n\r\n" + BODY) is None
    assert plain_head(b"\r\n".join([*LINES, *[blank] * 100]) + b"\r\n\r\n" + BODY) is not None
