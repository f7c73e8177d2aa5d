"""The Authorization header of a subscription: what is taken, and to which URLs it goes."""

import base64

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import Status
from dispatcher.rules.authorization import (
    Authorization,
    Basic,
    Bearer,
    authorization,
    check_no_conflict,
    kind_of,
)
from dispatcher.rules.callback import Claimed
from dispatcher.rules.request_headers import request_headers
from dispatcher.rules.subscription import Receiver, Secret, Subscription
from dispatcher.rules.workspace import Workspace
from dispatcher.signing import new_secret

URL = "https://a.example/hooks?t=1"
SECRETS = (Secret(new_secret(b"s" * 32), 1),)
BODY = b"{}"


def test_values() -> None:
    """The header is RFC 7617's and RFC 6750's."""
    basic = authorization("basic", "Aladdin", "open sesame")
    assert basic == Basic("Aladdin", "open sesame")
    assert basic.value == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 §2
    bearer = authorization("bearer", secret="mF_9.B5f-4.1JqM")
    assert bearer == Bearer("mF_9.B5f-4.1JqM")
    assert bearer.value == "Bearer mF_9.B5f-4.1JqM"  # RFC 6750 §2.1
    assert authorization("none") is None
    assert [kind_of(one) for one in (None, basic, bearer)] == ["none", "basic", "bearer"]


def test_a_password_may_have_colons() -> None:
    """Only the first colon parts user and password."""
    made = authorization("basic", "u", "a:b")
    assert made
    assert base64.b64decode(made.value.split()[1]) == b"u:a:b"


REFUSED = {
    "unknown": ("digest", "", "hush", "auth is one of none, basic, bearer, not 'digest'"),
    "empty kind": ("", "", "hush", "auth is one of none, basic, bearer, not ''"),
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
    "a user beside a token": ("bearer", "u", "hush", "goes with auth basic alone"),
    "a user beside none": ("none", "u", "", "goes with auth basic alone"),
}


@pytest.mark.parametrize(("kind", "user", "secret", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(kind: str, user: str, secret: str, says: str) -> None:
    """The error says what is allowed, and never shows the secret."""
    with pytest.raises(InvalidInput) as caught:
        authorization(kind, user, secret)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


def test_hidden() -> None:
    """`repr` shows the kind alone, also of the subscription."""
    for one in (Basic("hush", "hush"), Bearer("hush")):
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


def sent(receiver: Receiver, url: str) -> str | None:
    """The header of a callback for a receiver at a URL."""
    event_id = "e1" if isinstance(receiver, Workspace) else "e1.crm"
    claimed = Claimed(event_id, 1, 1, 2, "MESSAGE_SENT", Status.SENT, "m1", url, BODY)
    return request_headers(claimed, BODY, receiver, 1, "agent").get("Authorization")


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


def test_without_a_url_it_goes_nowhere() -> None:
    """A workspace without a callback URL posts to URLs of status changes alone."""
    assert sent(acme(Bearer("t"), url=""), URL) is None
