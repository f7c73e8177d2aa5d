"""The Authorization header of a subscription: what is taken, and to which URLs it goes."""

import base64

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import Status
from dispatcher.rules.authorization import (
    Authorization,
    Basic,
    Bearer,
    ClientCredentials,
    TokenServer,
    authorization,
    check_no_conflict,
    kind_of,
)
from dispatcher.rules.callback import Claimed
from dispatcher.rules.request_headers import proof_for, request_headers
from dispatcher.rules.subscription import Receiver, Secret, Subscription
from dispatcher.rules.workspace import Workspace
from dispatcher.signing import new_secret

URL = "https://a.example/hooks?t=1"
TOKEN_URL = "https://login.example/token?tenant=1"
CREDENTIALS = ClientCredentials(TOKEN_URL, "hush", "hush", "hush", "hush")
SECRETS = (Secret(new_secret(b"s" * 32), 1),)
BODY = b"{}"


def test_values() -> None:
    """The header is RFC 7617's and RFC 6750's."""
    basic = authorization("basic", "Aladdin", "open sesame")
    assert isinstance(basic, Basic)
    assert basic == Basic("Aladdin", "open sesame")
    assert basic.value == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 §2
    bearer = authorization("bearer", secret="mF_9.B5f-4.1JqM")
    assert isinstance(bearer, Bearer)
    assert bearer == Bearer("mF_9.B5f-4.1JqM")
    assert bearer.value == "Bearer mF_9.B5f-4.1JqM"  # RFC 6750 §2.1
    assert authorization("none") is None
    oauth2 = authorization("oauth2", "id", "hush", TokenServer(TOKEN_URL))
    assert [kind_of(one) for one in (None, basic, bearer, oauth2)] == ["none", "basic", "bearer", "oauth2"]


def test_a_password_may_have_colons() -> None:
    """Only the first colon parts user and password."""
    made = authorization("basic", "u", "a:b")
    assert isinstance(made, Basic)
    assert base64.b64decode(made.value.split()[1]) == b"u:a:b"


REFUSED = {
    "unknown": ("digest", "", "hush", "auth is one of none, basic, bearer, oauth2, not 'digest'"),
    "empty kind": ("", "", "hush", "auth is one of none, basic, bearer, oauth2, not ''"),
    "no user": ("basic", "", "hush", "needs a user"),
    "a colon": ("basic", "a:b", "hush", "without a colon"),
    "a line end in the user": ("basic", "a\r\nX: y", "hush", "needs a user"),
    "not ASCII": ("basic", "Zoë", "hush", "visible ASCII"),
    "a long user": ("basic", "u" * 257, "hush", "1 to 256"),
    "no password": ("basic", "u", "", "needs a password"),
    "a line end": ("basic", "u", "hush\n", "needs a password"),
    "a long password": ("basic", "u", "hush" * 1025, "1 to 4096"),
    "no token": ("bearer", "", "", "needs a token"),
    "a blank": ("bearer", "", "hush hush", "letters, digits"),
    "= inside": ("bearer", "", "hu=sh", "= at its end alone"),
    "a line end in the token": ("bearer", "", "hush\n", "needs a token"),
    "a user beside a token": ("bearer", "u", "hush", "goes with auth basic and oauth2 alone"),
    "a user beside none": ("none", "u", "", "goes with auth basic and oauth2 alone"),
}


@pytest.mark.parametrize(("kind", "user", "secret", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(kind: str, user: str, secret: str, says: str) -> None:
    """The error says what is allowed, and never shows the secret."""
    with pytest.raises(InvalidInput) as caught:
        authorization(kind, user, secret)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


SERVERS_REFUSED: dict[str, tuple[TokenServer, str, str, str]] = {
    "no token URL": (
        TokenServer(),
        "id",
        "hush",
        "needs a token URL: the token URL must start with https://",
    ),
    "http": (TokenServer("http://a.example/"), "id", "hush", "the token URL must be https"),
    "a user in the URL": (
        TokenServer("https://u:hush@a.example/"),
        "id",
        "hush",
        "must not carry a user name",
    ),
    "a fragment": (TokenServer("https://a.example/#x"), "id", "hush", "must not have a fragment"),
    "a long URL": (TokenServer("https://a.example/" + "x" * 2048), "id", "hush", "the limit is 2048"),
    "a URL that is not ASCII": (TokenServer("https://a.example/ü"), "id", "hush", "token URL in ASCII"),
    "no id": (TokenServer(TOKEN_URL), "", "hush", "needs a client id"),
    "a long id": (TokenServer(TOKEN_URL), "i" * 257, "hush", "client id of 1 to 256"),
    "an id with a line end": (TokenServer(TOKEN_URL), "i\n", "hush", "needs a client id"),
    "no secret": (TokenServer(TOKEN_URL), "id", "", "needs a client secret"),
    "a secret that is not ASCII": (TokenServer(TOKEN_URL), "id", "hüsh hush", "needs a client secret"),
    "a long secret": (TokenServer(TOKEN_URL), "id", "hush" * 1025, "client secret of 1 to 4096"),
    "two blanks in the scope": (TokenServer(TOKEN_URL, "a  b"), "id", "hush", "one blank between"),
    "a blank before the scope": (TokenServer(TOKEN_URL, " a"), "id", "hush", "one blank between"),
    "a quote in the scope": (TokenServer(TOKEN_URL, 'a"'), "id", "hush", "without"),
    "a backslash in the scope": (TokenServer(TOKEN_URL, "a\\b"), "id", "hush", "without"),
    "a line end in the scope": (TokenServer(TOKEN_URL, "a\n"), "id", "hush", "visible ASCII"),
    "a long scope": (TokenServer(TOKEN_URL, "a" * 2049), "id", "hush", "2048 characters at most"),
    "a line end in the audience": (TokenServer(TOKEN_URL, "", "a\n"), "id", "hush", "the audience"),
    "a long audience": (TokenServer(TOKEN_URL, "", "a" * 2049), "id", "hush", "at most 2048"),
}


@pytest.mark.parametrize(
    ("server", "user", "secret", "says"), SERVERS_REFUSED.values(), ids=list(SERVERS_REFUSED)
)
def test_client_credentials_refused(server: TokenServer, user: str, secret: str, says: str) -> None:
    """Each in one line that says what is allowed, without the secret."""
    with pytest.raises(InvalidInput) as caught:
        authorization("oauth2", user, secret, server)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


def test_client_credentials() -> None:
    """All that RFC 6749 allows; http where the settings allow it; the URL's host in ASCII."""
    made = authorization("oauth2", "a:b c", "p%s:x", TokenServer(TOKEN_URL, "a b:c/d", "https://api.example"))
    assert made == ClientCredentials(TOKEN_URL, "a:b c", "p%s:x", "a b:c/d", "https://api.example")
    local = authorization("oauth2", "id", "hush", TokenServer("http://127.0.0.1/t"), allow_http=True)
    assert local == ClientCredentials("http://127.0.0.1/t", "id", "hush")
    idna = authorization("oauth2", "id", "hush", TokenServer("https://zürich.example/t"))
    assert idna == ClientCredentials("https://xn--zrich-kva.example/t", "id", "hush")


@pytest.mark.parametrize("kind", ["none", "basic", "bearer"])
@pytest.mark.parametrize(
    "server", [TokenServer(TOKEN_URL), TokenServer(scope="a"), TokenServer(audience="a")]
)
def test_a_token_server_goes_with_oauth2_alone(kind: str, server: TokenServer) -> None:
    """Of another kind nothing of it is taken."""
    with pytest.raises(InvalidInput, match="go with auth oauth2 alone"):
        authorization(kind, "u" if kind == "basic" else "", "hush", server)


def test_hidden() -> None:
    """`repr` shows the kind alone, also of the subscription."""
    for one in (Basic("hush", "hush"), Bearer("hush"), CREDENTIALS):
        assert "hush" not in repr(one) + repr(crm(one))


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_an_own_header_conflicts(name: str) -> None:
    """One of the two must go, and the error says how."""
    with pytest.raises(InvalidInput, match="--header 'Authorization:' or --auth none"):
        check_no_conflict(Bearer("hush"), {name: "Basic x"})
    check_no_conflict(None, {name: "Basic x"})
    check_no_conflict(Bearer("hush"), {"X-Team": "a"})


def crm(auth: Authorization | None) -> Subscription:
    """A subscription beside the default one."""
    return Subscription("crm", "zeckta", URL, SECRETS, 1, auth=auth)


def acme(auth: Authorization | None, url: str = URL) -> Workspace:
    """A workspace, the default subscription of which has this."""
    return Workspace("acme", "zeckta", url, SECRETS, 1, "r1", auth=auth)


def to(receiver: Receiver, url: str) -> Claimed:
    """A callback for a receiver at a URL."""
    event_id = "e1" if isinstance(receiver, Workspace) else "e1.crm"
    return Claimed(event_id, 1, 1, 2, "MESSAGE_SENT", Status.SENT, "m1", url, BODY)


def sent(receiver: Receiver, url: str) -> str | None:
    """The header of a callback for a receiver at a URL, as far as it is known without a token server."""
    return request_headers(to(receiver, url), BODY, receiver, 1, "agent").get("Authorization")


def wants_token(receiver: Receiver, url: str) -> bool:
    """Whether a token is fetched for it."""
    return proof_for(to(receiver, url), receiver).credentials is not None


@pytest.mark.parametrize(
    ("url", "of_default", "of_crm"),
    [
        (URL, True, True),
        ("https://a.example/other", False, True),
        ("https://A.example:443/hooks?t=1", False, True),
        ("https://a.example:8443/hooks?t=1", False, False),
        ("http://a.example/hooks?t=1", False, False),
        ("https://b.example/hooks?t=1", False, False),
        ("https://a.example.evil/hooks?t=1", False, False),
    ],
)
def test_to_which_urls_it_goes(url: str, of_default: bool, of_crm: bool) -> None:
    """The default subscription's to its URL alone, as others come with status changes; another's to its origin."""
    assert (sent(acme(Bearer("t")), url) == "Bearer t", sent(crm(Bearer("t")), url) == "Bearer t") == (
        of_default,
        of_crm,
    )
    assert sent(acme(None), url) is sent(crm(None), url) is None
    assert (wants_token(acme(CREDENTIALS), url), wants_token(crm(CREDENTIALS), url)) == (of_default, of_crm)
    assert sent(acme(CREDENTIALS), url) is sent(crm(CREDENTIALS), url) is None
    assert not wants_token(acme(Bearer("t")), url)


def test_without_a_url_it_goes_nowhere() -> None:
    """A workspace without a callback URL posts to URLs of status changes alone."""
    assert sent(acme(Bearer("t"), url=""), URL) is None
