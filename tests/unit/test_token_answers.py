"""Access tokens: what a token server is asked, and what is taken of its answer."""

import base64
import json
from urllib.parse import parse_qs

import pytest
from msgspec.structs import replace

from dispatcher.rules.authorization import ClientCredentials
from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.tokens import MAX_TOKEN, Token, read_token, request_body, request_headers

HUSH = "hush/+ %"
CREDENTIALS = ClientCredentials("https://login.example/token?tenant=hush-tenant", "id", HUSH)


def granted(**fields: object) -> bytes:
    """An answer's body."""
    return json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 3600} | fields).encode()


def found(body: bytes, status: int = 200) -> Token | NoAnswer:
    return read_token(status, body, CREDENTIALS, 1000.0)


# ---- the request


def test_the_client_proves_itself() -> None:
    """Id and secret are form-encoded, so that a colon in the id parts nothing (RFC 6749 §2.3.1)."""
    headers = request_headers(replace(CREDENTIALS, client_id="a:b c", client_secret="p%s+/=:ß"))
    kind, _, encoded = headers["Authorization"].partition(" ")
    assert (kind, base64.b64decode(encoded)) == ("Basic", b"a%3Ab+c:p%25s%2B%2F%3D%3A%C3%9F")
    assert headers["Accept"] == "application/json"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_the_form() -> None:
    """Scope and audience are in it if there are any; never the secret."""
    assert request_body(CREDENTIALS) == b"grant_type=client_credentials"
    body = request_body(replace(CREDENTIALS, scope="a b:c", audience="https://api.example/?x=y&z"))
    assert parse_qs(body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b:c"],
        "audience": ["https://api.example/?x=y&z"],
    }


# ---- the answer


@pytest.mark.parametrize(
    ("expires_in", "usable"),
    [
        (3600, 3570),
        (300, 270),
        (100, 90),
        (1, 0.9),
        (0, 0),
        (-5, 0),
        (59.5, 53.55),
        ("3600", 3570),
        (None, 270),
        (10**12, 86_370),
        (10**400, 86_370),
    ],
)
def test_how_long_it_is_used(expires_in: object, usable: float) -> None:
    """Until 30 s before its end, or a tenth of its life; five minutes if nothing is said, a day at most."""
    token = found(granted(expires_in=expires_in))
    assert isinstance(token, Token)
    assert (token.text, token.fetched_at) == ("t", 1000.0)
    assert token.usable_until - 1000 == pytest.approx(usable)


def test_a_life_that_is_not_said() -> None:
    """`expires_in` may be left out."""
    token = found(b'{"access_token":"t","token_type":"bEARER"}')
    assert isinstance(token, Token)
    assert token.usable_until == 1270.0


NO_TOKEN = {
    "nothing": (b"", "no JSON object"),
    "HTML": (b"<html>", "no JSON object"),
    "a list": (b"[]", "no JSON object"),
    "not UTF-8": (b'{"a":"\xff"}', "no JSON object"),
    "very deep": (b"[" * 16_000, "no JSON object"),
    "cut off": (granted(x="x" * 20_000)[:16_384], "or too long"),
    "no token": (b'{"token_type":"bearer"}', "no access_token"),
    "an empty token": (granted(access_token=""), "no access_token"),
    "a number": (granted(access_token=1), "no access_token"),
    "a line end in it": (granted(access_token="t\r\nX: y"), "no access_token"),
    "not ASCII": (granted(access_token="tö"), "no access_token"),
    "a long token": (granted(access_token="t" * (MAX_TOKEN + 1)), "of 1 to 8192"),
    "no type": (b'{"access_token":"t"}', "token_type"),
    "another type": (granted(token_type="mac"), "token_type"),
    "a type that is no text": (granted(token_type=1), "token_type"),
    "a life in words": (granted(expires_in="soon"), "expires_in"),
    "a life that is true": (granted(expires_in=True), "expires_in"),
    "a life that is a list": (granted(expires_in=[]), "expires_in"),
    "a life without end": (granted().replace(b"3600", b"1e999"), ""),
}


@pytest.mark.parametrize(("body", "says"), NO_TOKEN.values(), ids=list(NO_TOKEN))
def test_nonsense(body: bytes, says: str) -> None:
    """It is no token, and one line says why without quoting it."""
    answer = found(body)
    assert isinstance(answer, NoAnswer)
    assert answer.word == "auth"
    assert answer.text.startswith("token server: ")
    assert says in answer.text
    assert len(answer.text) < 120


def test_a_long_token() -> None:
    """One of as many characters as are allowed is taken."""
    assert isinstance(found(granted(access_token="t" * MAX_TOKEN)), Token)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, {"error": "invalid_client", "error_description": "hush"}, "http_401 (invalid_client)"),
        (400, {"error": "x" * 99}, f"http_400 ({'x' * 60})"),
        (400, {"error": "two words"}, "http_400"),
        (400, {"error": "\x1b[2J"}, "http_400"),
        (400, {"error": ["invalid_client"]}, "http_400"),
        (400, {"error": f"wrong:{HUSH}"}, "http_400"),
        (400, {"error": "wrong:hush%2F%2B+%25"}, "http_400"),
        (400, {"error": f"not:{base64.b64encode(b'id:hush%2F%2B+%25').decode()}"}, "http_400"),
        (500, "hush", "http_500"),
        (302, {}, "http_302"),
        (201, {"access_token": "t", "token_type": "bearer"}, "http_201"),
    ],
)
def test_a_refusal(status: int, body: object, text: str) -> None:
    """Its status and the code of RFC 6749 §5.2, never its description, and nothing that has the secret in it."""
    assert found(json.dumps(body).encode(), status) == NoAnswer("auth", f"token server: {text}")
    assert HUSH not in text


def test_nothing_shows_a_token() -> None:
    """Nor its repr."""
    assert "hush" not in repr(Token("hush", 0.0, 1.0))
