"""A workspace's own headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.rules.workspace_headers import MAX_HEADERS, check_headers, parse_headers


def test_good_headers() -> None:
    """Headers of one's own are taken as they are."""
    headers = {"Authorization": "Bearer abc.def", "X-Api-Key": "a b\tc"}
    assert headers == check_headers(headers, "sendexa")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("Host", "x", "dispatcher's own"),
        ("content-length", "1", "dispatcher's own"),
        ("Transfer-Encoding", "chunked", "dispatcher's own"),
        ("CONNECTION", "close", "dispatcher's own"),
        ("User-Agent", "x", "dispatcher's own"),
        ("webhook-id", "x", "dispatcher's own"),
        ("Webhook-Anything", "x", "dispatcher's own"),
        ("x-signature", "x", "dialect's own"),
        ("X-Attempt", "1", "dialect's own"),
        ("X Y", "x", "name is"),
        ("X\r\nY", "x", "name is"),
        ("", "x", "name is"),
        ("X:", "x", "name is"),
        ("X", "a\r\nY: b", "visible ASCII"),
        ("X", "a\nb", "visible ASCII"),
        ("X", "a\x00b", "visible ASCII"),
        ("X", "", "visible ASCII"),
        ("X", " a", "visible ASCII"),
        ("X", "ü", "visible ASCII"),
        ("X", "a" * 3000, "visible ASCII"),
    ],
)
def test_refused_headers(name: str, value: str, says: str) -> None:
    """What is ours, the dialect's, or could break a request is refused."""
    with pytest.raises(InvalidInput, match=says):
        check_headers({name: value}, "sendexa")


def test_values_stay_secret() -> None:
    """An error never shows a value: it may be a token."""
    with pytest.raises(InvalidInput) as caught:
        check_headers({"Authorization": "hush\n"}, "zeckta")
    assert "hush" not in str(caught.value)


def test_number_and_case() -> None:
    """There are at most 20, and one name counts once, however it is written."""
    with pytest.raises(InvalidInput, match="at most"):
        check_headers({f"X-{n}": "x" for n in range(MAX_HEADERS + 1)}, "zeckta")
    with pytest.raises(InvalidInput, match="twice"):
        check_headers({"X-Key": "a", "x-key": "b"}, "zeckta")


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3))
def test_any_header(headers: dict[str, str]) -> None:
    """Whatever is given is taken in a form that no request can be broken with, or refused."""
    try:
        taken = check_headers(headers, "zeckta")
    except InvalidInput:
        return
    assert not set("\r\n\0") & set("".join([*taken, *taken.values()]))
    assert all(name and value and value.isascii() for name, value in taken.items())


def test_typed_headers() -> None:
    """Headers are typed as 'Name: value'; one without a value is to be removed."""
    assert {"X-A": "b:c", "X-B": ""} == parse_headers(["X-A: b:c", "X-B:"])
    with pytest.raises(InvalidInput, match="Name: value"):
        parse_headers(["X-A"])
