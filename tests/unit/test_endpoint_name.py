"""An endpoint's name as a value and as text."""

from hypothesis import given
from hypothesis.strategies import from_regex

from dispatcher.model import WORKSPACE_PATTERN
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.keys import endpoint_id

TEXT = "acme https://a.example:443"


def test_text() -> None:
    """The text has the workspace, a space and the origin; a callback's URL and its workspace make the same name."""
    made = EndpointName("acme", parse_callback_url("https://a.example/hooks").origin)
    assert (TEXT, EndpointName.parse(TEXT)) == (str(made), made)


@given(from_regex(WORKSPACE_PATTERN, fullmatch=True))
def test_read_again(workspace: str) -> None:
    """What was written is read as it was, for every name that a workspace may have."""
    name = EndpointName(workspace, "https://[2001:db8::1]:8443")
    assert name == EndpointName.parse(str(name))


def test_without_a_space() -> None:
    """A text that somebody wrote over by hand is read all the same: it has no origin."""
    assert EndpointName("garbage", "") == EndpointName.parse("garbage")


def test_same_id() -> None:
    """Value and text have the same id in keys."""
    assert endpoint_id(TEXT) == endpoint_id(EndpointName.parse(TEXT))
