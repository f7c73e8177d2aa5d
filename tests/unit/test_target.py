"""The request line of a URL: written as it is where nothing is to be escaped, and as httpx writes it in every case."""

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.target import Target, read_target

EVERYWHERE = AddressPolicy.of(["0.0.0.0/0", "::/0"])
TARGETS = st.from_regex(
    r"(/[a-zA-Z0-9._~%=&:@!$'()*+,;-]{0,5}){0,4}(\?[a-z0-9._~%=&/?-]{0,6})?", fullmatch=True
)


@example("")
@example("/a/../b")
@example("/a/.")
@example("/a//b")
@example("/hooks?a=%zz")
@example("/hooks?a=1&b=..")
@given(TARGETS)
def test_path_is_httpx_s(target: str) -> None:
    """Path and query are those that httpx would send: escapes and dot segments included."""
    found = read_target(f"https://a.example{target}", EVERYWHERE, None)
    assert isinstance(found, Target)
    path = httpx.URL(f"http://host{target}").raw_path
    assert b" %b HTTP/1.1\r\nHost: a.example\r\n" % path == found.start
