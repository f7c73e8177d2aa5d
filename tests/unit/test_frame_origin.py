"""Which sites may show the portal in a frame."""

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.rules.frame_origin import frame_origin


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://app.acme.example", "https://app.acme.example"),
        ("HTTPS://App.Acme.Example:8443", "https://app.acme.example:8443"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("https://localhost", "https://localhost"),
    ],
)
def test_an_origin_is_taken_in_lower_case(given: str, expected: str) -> None:
    assert expected == frame_origin(given)


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        "*",
        "https:",
        "https://",
        "https://*",
        "https://*.acme.example",
        "https://app.acme.example/",
        "https://app.acme.example/path",
        "https://app.acme.example?x",
        "https://app.acme.example#x",
        "https://app.acme.example:",
        "https://app.acme.example:*",
        "https://app.acme.example:0",
        "https://app.acme.example:65536",
        "https://user@app.acme.example",
        "https://a.example https://b.example",
        "https://a.example,https://b.example",
        "https://a.example;script-src",
        "https://a.example\n",
        "https://a.example\r\nX: y",
        " https://a.example",
        "https://a..example",
        "https://-a.example",
        "https://a_b.example",
        "https://[::1]",
        "https://acmé.example",
        "https://'self'",
        "'self'",
        "null",
        "data:",
        "ftp://a.example",
        "//a.example",
        "a.example",
        f"https://{'a' * 64}.example",
        f"https://{'a.' * 200}example",
    ],
)
def test_what_could_mean_more_than_one_site_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match=r"^write https://HOST"):
        frame_origin(given)


@pytest.mark.parametrize(
    "given", ["http://app.acme.example", "http://127.0.0.1.acme.example", "http://localhost.example"]
)
def test_http_is_for_this_machine_alone(given: str) -> None:
    with pytest.raises(InvalidInput, match="must be https://"):
        frame_origin(given)
