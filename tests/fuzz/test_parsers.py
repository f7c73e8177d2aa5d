"""Our reading of a URL against three others': what we accept, all read in the same way.

urllib, httpx and ada (the parser of browsers, by the WHATWG URL standard; it is also that of Node.js). `make fuzz`
looks for long; in all other runs the examples are few, and the same each time.
"""

import ipaddress
import os
from collections.abc import Callable
from urllib.parse import urlsplit

import ada_url
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import DEFAULT_PORTS, CallbackUrl, parse_callback_url

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
fuzz = settings(
    max_examples=int(EXAMPLES or "1000"),
    derandomize=not EXAMPLES,
    database=None if not EXAMPLES else settings.default.database,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

View = tuple[str, str, int | None, bool]
"""Scheme, host, port, and whether there is a user name or password."""


def by_urllib(url: str) -> View:
    """How Python's own parser reads a URL. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, usual(parts.hostname or ""), port, parts.username is not None


def by_httpx(url: str) -> View:
    """How httpx reads it. Raises ValueError."""
    try:
        parts = httpx.URL(url)
        host = parts.raw_host.decode()
        parts.host.isascii()  # decodes it
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(str(error)) from None
    return parts.scheme, usual(host), parts.port or DEFAULT_PORTS.get(parts.scheme), bool(parts.userinfo)


def by_browsers(url: str) -> View:
    """How browsers and Node.js read it. Raises ValueError."""
    parts = ada_url.URL(url)
    scheme, port = parts.protocol.removesuffix(":"), int(parts.port or 0)
    has_user = bool(parts.username or parts.password)
    return scheme, usual(parts.hostname), port or DEFAULT_PORTS.get(scheme), has_user


PARSERS: list[Callable[[str], View]] = [by_urllib, by_httpx, by_browsers]


def usual(host: str) -> str:
    """A host without brackets and dot at its end; an IPv6 address as its number has it."""
    plain = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    try:
        return ipaddress.IPv6Address(plain).exploded
    except ValueError:
        return plain.removesuffix(".")


def ours(url: str) -> CallbackUrl | None:
    """Our reading; None where we refuse."""
    try:
        return parse_callback_url(url, allow_http=True)
    except InvalidInput:
        return None


def view_of(read: CallbackUrl) -> View:
    """Our reading in the others' terms."""
    return read.scheme, usual(read.host), read.port, False


def one_of(words: str) -> st.SearchStrategy[str]:
    """One of the words."""
    return st.sampled_from(words.split())


ODD = st.sampled_from(
    [*"@:/\\?#[]%.-_~!$&'()*+,;=|^`{}<>\" \t\n\r\0", "\u3002", "\uff0e", "\uff61", "\u00ad"]
)
PLAIN = one_of("a A x-y a_b com example a1 1a xn--bcher-kva bücher BÜCHER ß straße 例え ﬀ")
STRANGE = one_of(
    "-a a- 1 01 0x1 0X7F 0x 08 256 4294967296 xn-- xn--a xn--a.1 İ １ ① ١ a１ ☃ v1 a..b ."
) | st.sampled_from(["", "a" * 63, "a" * 64, "\u200d", "a\u200cb"])
FOREIGN = st.text(st.characters(categories=["L", "M", "N"]), min_size=1, max_size=6)
LABELS = PLAIN | PLAIN | FOREIGN | STRANGE
NAMES = st.builds(
    "{}{}".format,
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["", "", "", ".", "..", "。"]),
)
NUMBERS = st.integers(0, 2**32 + 9).flatmap(lambda n: st.sampled_from([f"{n}", f"{n:#x}", f"0{n:o}"]))
BYTES = st.integers(0, 255).map(str)
V4 = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.lists(BYTES, min_size=2, max_size=5).map(".".join),
    NUMBERS,
    st.lists(NUMBERS, min_size=2, max_size=4).map(".".join),
)
V6 = st.ip_addresses(v=6).flatmap(
    lambda a: st.sampled_from(
        [a.compressed, a.exploded.upper(), f"::{a.exploded[-9:]}", f"{a.compressed}%25lo"]
    )
) | st.builds("{}{}".format, one_of("::ffff: :: 64:ff9b:: 1:2:3:4:5:6:"), V4)
IN_BRACKETS = st.builds("[{}]".format, V6 | V6 | one_of("v1.x vF.a:b 127.0.0.1 127.1 a.example [::1] ::1]"))
HOSTS = st.one_of(
    NAMES,
    NAMES,
    V4,
    IN_BRACKETS,
    V6,
    st.builds("{}{}".format, V4 | NAMES, IN_BRACKETS),
    st.builds("{}{}{}".format, NAMES | V4, ODD | st.characters(), NAMES | V4 | IN_BRACKETS),
    st.text(max_size=12),
)
PORTS = (
    st.just("")
    | one_of(": :80 :443 :8080 :00443 :65535")
    | one_of(":65536 :0 :-1 :+1 :1_0 :１２ :٣ :a :80:80 :80@")
)
USERS = one_of("@ u@ u:p@ :@ a.example@ a.example:80@ [::1]@") | st.just("")
STARTS = st.sampled_from(
    [
        "https:",
        "https:/",
        "https:///",
        "//",
        "http:\\\\",
        " https://",
        "httpſ://",
        "ftp://",
        "ws://",
        "https:\t//",
        "https://\n",
    ]
)
MOST = one_of("https:// http:// HTTPS:// hTTp://")
ENDS = one_of(
    "/ /x ? /? ?@b.example /@b.example /..//b.example /ü?ß ;/ # #@b.example \\@b.example"
) | st.text(max_size=8).map("/{}".format)
URLS = st.one_of(
    st.builds("{}{}{}{}".format, MOST, NAMES | V4 | IN_BRACKETS, PORTS, one_of("/ /x ?y /ü")),
    st.builds("{}{}{}{}".format, MOST, HOSTS, PORTS, ENDS),
    st.builds("{}{}{}{}{}".format, MOST | STARTS, USERS, HOSTS, PORTS, ENDS),
    st.builds("{}{}{}".format, MOST, st.lists(ODD | LABELS, max_size=8).map("".join), ENDS),
)


@fuzz
@given(URLS)
@example("http://1.1.1.1[v1.x]:8080/")
@example("https://[::ffff:1.2.3.4]/")
@example("https://a.example./")
def test_what_is_accepted_is_read_alike(text: str) -> None:
    """Of a URL that we accept, urllib, httpx and browsers see our scheme, host and port, and no user name."""
    read = ours(text)
    if read is None:
        return
    assert view_of(read) == by_browsers(text)  # who know every spelling; we keep what we accept in ASCII
    assert [view_of(read)] * 3 == [parser(read.url) for parser in PARSERS]
    assert [view_of(read)] * 3 == [
        parser(f"{read.scheme}://{read.authority}{read.target}") for parser in PARSERS
    ]


@fuzz
@given(URLS)
def test_what_is_kept_is_what_was_checked(text: str) -> None:
    """Read again from the ledger, or from its endpoint's name, a URL leads to the same place."""
    read = ours(text)
    if read is None:
        return
    again, endpoint = ours(read.url), ours(read.origin)
    assert again == read
    assert endpoint
    assert (read.host, read.port, read.address, read.origin) == (
        endpoint.host,
        endpoint.port,
        endpoint.address,
        endpoint.origin,
    )


@fuzz
@given(st.builds("http://{}/".format, V4 | NAMES.filter(lambda name: name[-1:].isdigit())))
def test_a_number_is_its_address_or_refused(text: str) -> None:
    """A host that browsers read as an IPv4 address is refused, or is that address for us, too."""
    read = ours(text)
    if read is None:
        return
    try:
        address = ipaddress.IPv4Address(by_browsers(text)[1])
    except ValueError:
        assert read.address is None
    else:
        assert (address, str(address)) == (read.address, read.host)


DISAGREED = [
    "http://1.1.1.1[v1.x]:8080/",
    "http://a.example[v1.x]/",
    "http://[v1.x]/",
    "http://[fe80::1%25lo]/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://a.0x1/",
    "http://%31%32%37.0.0.1/",
    "http://a%2eexample/",
    "http://a.example\\@b.example/",
    "http:\\\\a.example/",
    "http:/a.example/",
    "http:a.example/",
    "http:///a.example/",
    "http://a.example\t/",
    "http://a.exa\nmple/",
    "http://a.example:１２/",
    "http://a.example:+80/",
    "http://a.example:1_0/",
    "http://a.example:65536/",
    "http://xn--/",
    "http://a.ex%21mple/",
]
"""URLs that the three do not read in the same way, or that some of them refuse."""


@pytest.mark.parametrize("url", DISAGREED)
def test_what_is_read_in_two_ways_is_refused(url: str) -> None:
    """Where the three parsers differ we refuse; so the comparison above could have failed."""
    views = set()
    for parser in PARSERS:
        try:
            views.add(parser(url))
        except ValueError:
            views.add(None)
    assert len(views) > 1
    assert ours(url) is None
