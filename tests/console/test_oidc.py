"""Logging in at an identity provider: a real one on a socket, a real console, a real browser."""

import hmac
import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.acceptance.stack import free_port
from tests.console.conftest import Visits, World
from tests.console.provider import CLIENT, SECRET, Key, OpenIdProvider, b64, running_provider
from tests.console.world import ConsoleProcess, console

ROLES = "admin:jane@example.com,operator:group:on-call,viewer:u-7"


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    """A provider at localhost: for browsers another site than the console at 127.0.0.1."""
    with running_provider() as found:
        yield found


@pytest.fixture(scope="module")
def signing_on(world: World, provider: OpenIdProvider) -> Iterator[ConsoleProcess]:
    """A console with single sign-on."""
    port = free_port()
    settings = {
        "DISPATCHER_CONSOLE_URL": f"http://127.0.0.1:{port}",
        "DISPATCHER_CONSOLE_OIDC_ISSUER": provider.issuer,
        "DISPATCHER_CONSOLE_OIDC_CLIENT_ID": CLIENT,
        "DISPATCHER_CONSOLE_OIDC_CLIENT_SECRET": SECRET,
        "DISPATCHER_CONSOLE_ROLES": ROLES,
    }
    with console(world.stack, "--port", str(port), **settings) as found:
        yield found


@pytest.fixture
def client(signing_on: ConsoleProcess, provider: OpenIdProvider) -> Iterator[httpx.Client]:
    """A browser's cookies without a browser, at a provider that behaves."""
    provider.reset()
    with httpx.Client(base_url=signing_on.url, timeout=30) as found:
        yield found
    assert not provider.problems


def asked_by(client: httpx.Client, to: str = "/") -> dict[str, str]:
    """Begins a log-in; what the provider is asked for."""
    sent = client.get("/login/oidc", params={"to": to})
    assert sent.status_code == 303, sent.text
    return dict(parse_qsl(urlsplit(sent.headers["location"]).query))


def signed_on(client: httpx.Client, provider: OpenIdProvider, to: str = "/") -> httpx.Response:
    """A whole log-in."""
    return client.get(provider.back(asked_by(client, to)))


def role(client: httpx.Client) -> str:
    """The account page's role; empty if nobody is logged in."""
    page = client.get("/account")
    return page.text.partition("<dt>role</dt><dd>")[2].partition("<")[0]


def test_jane_logs_in_at_her_provider(
    signing_on: ConsoleProcess, provider: OpenIdProvider, browser: Visits
) -> None:
    """The cookie of the log-in survives the way back from another site, and she lands where she wanted to go."""
    provider.reset()
    page = browser.new().page
    page.goto(f"{signing_on.url}/callbacks?state=failed")
    page.get_by_role("link", name="Log in with single sign-on").click()
    page.get_by_role("link", name="I am jane").click()
    page.wait_for_url(f"{signing_on.url}/callbacks?state=failed")
    page.goto(f"{signing_on.url}/account")
    assert "jane@example.com" in page.locator("main").inner_text()
    assert "admin" in page.locator("main").inner_text()
    assert ["dispatcher_console"] == [one["name"] for one in page.context.cookies(signing_on.url)]
    assert not provider.problems


def test_a_group_gives_its_role(client: httpx.Client, provider: OpenIdProvider) -> None:
    """Of several roles the highest one counts."""
    provider.user |= {"sub": "u-2", "email": "alice@example.com"}
    assert signed_on(client, provider).headers["location"] == "/"
    assert role(client) == "operator"


@pytest.mark.parametrize("verified", [False, "false", None, 0])
def test_an_email_that_is_not_verified_is_no_name(
    client: httpx.Client, provider: OpenIdProvider, verified: object
) -> None:
    """Else somebody could type an admin's address at the provider."""
    provider.user |= {"sub": "u-7", "email_verified": verified, "groups": []}
    provider.user |= {"preferred_username": "jane@example.com", "name": "jane@example.com"}
    signed_on(client, provider)
    assert role(client) == "viewer"


def test_a_user_without_a_role_stays_outside(client: httpx.Client, provider: OpenIdProvider) -> None:
    """The page says which setting decides."""
    provider.user |= {"sub": "u-3", "email": "<b>mallory@example.com", "groups": "others"}
    answer = signed_on(client, provider)
    assert answer.status_code == 403
    assert "&lt;b&gt;mallory@example.com has no role here: DISPATCHER_CONSOLE_ROLES" in answer.text
    assert not client.cookies
    assert role(client) == ""


def unsigned(claims: dict[str, Any]) -> str:
    """A token that nobody signed (`alg: none`)."""
    return f"{b64(json.dumps({'alg': 'none', 'kid': 'first'}).encode())}.{b64(json.dumps(claims).encode())}."


def by_secret(claims: dict[str, Any]) -> str:
    """A token that is signed with the client's secret."""
    head = b64(json.dumps({"alg": "HS256", "kid": "first"}).encode())
    signed = f"{head}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def altered(provider: OpenIdProvider) -> Callable[[dict[str, Any]], str]:
    """Tokens whose claims were changed after they were signed."""

    def token(claims: dict[str, Any]) -> str:
        head, _, signature = provider.key.token(claims).split(".")
        return f"{head}.{b64(json.dumps(claims | {'sub': 'u-7'}).encode())}.{signature}"

    return token


WRONG_CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "of another log-in": ({"nonce": "another"}, "nonce"),
    "of no log-in": ({"nonce": None}, "nonce"),
    "for another client": ({"aud": "another"}, "aud"),
    "for nobody": ({"aud": None}, "aud"),
    "for several, of which another asked": ({"aud": [CLIENT, "another"], "azp": "another"}, "azp"),
    "for several, and who asked is not said": ({"aud": [CLIENT, "another"]}, "azp"),
    "of another issuer": ({"iss": "https://evil.example"}, "iss"),
    "expired": ({"exp": 1_700_000_000}, "exp"),
    "without an end": ({"exp": None}, "exp"),
    "without a time": ({"iat": None}, "iat"),
    "of tomorrow": ({"iat": int(time.time()) + 86_400}, "iat"),
    "of nobody": ({"sub": None}, "sub"),
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_a_token_with_a_wrong_claim_is_refused(
    client: httpx.Client, provider: OpenIdProvider, name: str
) -> None:
    """The line names the claim, and nothing of what it says."""
    provider.claims, claim = WRONG_CLAIMS[name]
    answer = signed_on(client, provider)
    assert answer.status_code == 400
    assert "the identity provider&#39;s token is not valid" in answer.text
    assert claim in answer.text
    assert "another" not in answer.text
    assert "evil.example" not in answer.text
    assert role(client) == ""


@pytest.mark.parametrize(
    "how", ["unsigned", "by the client's secret", "altered", "by a stranger", "no token"]
)
def test_a_token_that_the_provider_did_not_sign_is_refused(
    client: httpx.Client, provider: OpenIdProvider, how: str
) -> None:
    """Also one without a signature, which says so itself."""
    provider.token = {
        "unsigned": unsigned,
        "by the client's secret": by_secret,
        "altered": altered(provider),
        "by a stranger": Key("first").token,
        "no token": lambda _: "not.a token",
    }[how]
    answer = signed_on(client, provider)
    assert answer.status_code == 400
    assert "the identity provider&#39;s token" in answer.text
    assert role(client) == ""


def test_a_new_key_of_the_provider_is_found(client: httpx.Client, provider: OpenIdProvider) -> None:
    """Its keys are read once more for one that is not known; and not again for those that are."""
    signed_on(client, provider)
    before = provider.asked["/keys"]
    provider.key = Key("second")
    provider.published.append(provider.key)
    assert signed_on(client, provider).status_code == 303
    assert signed_on(client, provider).status_code == 303
    assert provider.asked["/keys"] == before + 1
    assert provider.asked["/.well-known/openid-configuration"] == 1


def test_a_key_that_is_not_published_is_looked_for_once(
    client: httpx.Client, provider: OpenIdProvider
) -> None:
    """No loop of questions, and no log-in."""
    signed_on(client, provider)
    before = provider.asked["/keys"]
    provider.key = Key("never published")
    answer = signed_on(client, provider)
    assert "a key that it does not publish" in answer.text
    assert provider.asked["/keys"] == before + 1


def test_an_answer_is_taken_once(client: httpx.Client, provider: OpenIdProvider) -> None:
    """Also if the browser still had the cookie: the provider is not asked again."""
    asked = asked_by(client)
    cookies = dict(client.cookies)
    assert client.get(provider.back(asked)).status_code == 303
    tokens = provider.asked["/token"]
    client.cookies.clear()
    client.cookies.update(cookies)
    again = client.get(provider.back(asked))
    assert again.status_code == 400
    assert "this log-in was used" in again.text
    assert provider.asked["/token"] == tokens


def test_an_answer_for_another_browser_is_refused(client: httpx.Client, provider: OpenIdProvider) -> None:
    """Else a stranger could have somebody work in the stranger's session: they send the link of their own answer."""
    with httpx.Client(base_url=client.base_url) as stranger:
        asked = asked_by(stranger)
    tokens = provider.asked["/token"]
    assert client.get(provider.back(asked)).status_code == 400
    own = asked_by(client)
    for state in (asked["state"], "", own["state"] + "x"):
        answer = client.get(provider.back(asked | {"state": state}))
        assert answer.status_code == 400
        assert f"begin again at {client.base_url}/login" in answer.text.replace("<wbr>", "")
    assert provider.asked["/token"] == tokens
    assert role(client) == ""


def test_a_log_in_ends_after_ten_minutes(client: httpx.Client, provider: OpenIdProvider) -> None:
    """And the time is part of what the state is made of: who has the state alone cannot move it."""
    asked = asked_by(client)
    name, text = next(iter(client.cookies.items()))
    rest = text.partition(".")[2]

    def tokens_asked(seconds: int, state: str = "") -> int:
        """How often the provider is asked for a token if the log-in began so long ago."""
        begun, before = f"{int(time.time()) - seconds}.{rest}", provider.asked["/token"]
        client.cookies.clear()
        client.cookies.set(name, begun)
        fitting = b64(sha256(f"state {begun}".encode()).digest())
        answer = client.get("/login/oidc/back", params={"state": state or fitting, "code": "x"})
        assert answer.status_code == 400
        return provider.asked["/token"] - before

    assert (1, 0, 0) == (tokens_asked(500), tokens_asked(660), tokens_asked(-60))
    assert tokens_asked(30, asked["state"]) == 0


def test_a_cookie_that_somebody_made_up_does_no_harm(client: httpx.Client, provider: OpenIdProvider) -> None:
    """Its maker knows which state fits it: the time and the path in it are still read with care."""
    name = "dispatcher_log_in"
    for text in ("", ".", "9" * 3000 + ".x.y", "x.y.z", f"{int(time.time())}.x.!!"):
        state = b64(sha256(f"state {text}".encode()).digest())
        client.cookies.clear()
        client.cookies.set(name, text)
        answer = client.get("/login/oidc/back", params={"state": state, "code": "x"})
        assert answer.status_code == 400


def test_the_cookie_of_a_log_in_is_for_the_server_alone(
    client: httpx.Client, provider: OpenIdProvider
) -> None:
    """The provider, and who reads its logs, learns nothing by which the cookie could be made."""
    sent = client.get("/login/oidc")
    (cookie,) = sent.headers.get_list("set-cookie")
    text, *flags = cookie.split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"} == set(flags)
    assert text.split(".")[1] not in sent.headers["location"]
    assert len(text.split(".")[1]) == 43


@pytest.mark.parametrize(
    "to", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/\t/evil.example"]
)
def test_no_log_in_leads_to_another_site(client: httpx.Client, provider: OpenIdProvider, to: str) -> None:
    assert signed_on(client, provider, to).headers["location"] == "/"


def test_the_provider_says_no(client: httpx.Client, provider: OpenIdProvider) -> None:
    """Its error code is shown, its description is not: anyone could have written that."""
    asked = asked_by(client)
    said = {"state": asked["state"], "error": "access_denied", "error_description": "call 0900-EVIL"}
    answer = client.get("/login/oidc/back", params=said)
    assert answer.status_code == 400
    assert "the identity provider did not log you in: access_denied" in answer.text
    assert "EVIL" not in answer.text


def test_an_answer_of_another_provider_is_refused(client: httpx.Client, provider: OpenIdProvider) -> None:
    """RFC 9207: the code is for that provider, and is not shown to ours."""
    tokens = provider.asked["/token"]
    said = {"state": asked_by(client)["state"], "code": "of-another", "iss": "https://evil.example"}
    assert "another identity provider" in client.get("/login/oidc/back", params=said).text
    assert provider.asked["/token"] == tokens


def test_a_code_that_the_provider_does_not_know(
    client: httpx.Client, provider: OpenIdProvider, signing_on: ConsoleProcess
) -> None:
    """The page says that it did not work, the log says why; neither has the code or the secret."""
    said = {"state": asked_by(client)["state"], "code": "made-up"}
    answer = client.get("/login/oidc/back", params=said)
    assert answer.status_code == 400
    assert "the identity provider does not answer as it should" in answer.text
    log = signing_on.log.read_text()
    assert "invalid_grant" in log
    for secret in ("made-up", SECRET):
        assert secret not in log + answer.text


WRONG_DOCUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"issuer": "https://evil.example"}, "names another issuer"),
    "no token endpoint": ({"token_endpoint": None}, "no token_endpoint"),
    "no URL": ({"jwks_uri": "http:///keys"}, "no jwks_uri"),
    "a script": ({"authorization_endpoint": "javascript:alert(1)"}, "no authorization_endpoint"),
}


@pytest.mark.parametrize("name", WRONG_DOCUMENTS)
def test_a_provider_that_is_not_what_it_should_be(world: World, name: str) -> None:
    """The log-in page stays whole, and says what is wrong."""
    port = free_port()
    with running_provider() as provider:
        provider.document, text = WRONG_DOCUMENTS[name]
        settings = {
            "DISPATCHER_CONSOLE_URL": f"http://127.0.0.1:{port}",
            "DISPATCHER_CONSOLE_OIDC_ISSUER": provider.issuer,
            "DISPATCHER_CONSOLE_OIDC_CLIENT_ID": CLIENT,
            "DISPATCHER_CONSOLE_ROLES": ROLES,
        }
        with console(world.stack, "--port", str(port), **settings) as found:
            answer = httpx.get(f"{found.url}/login/oidc")
            assert answer.status_code == 400
            assert text in answer.text
            assert "evil.example" not in answer.text


def test_keys_that_cannot_be_read_let_nobody_in(world: World) -> None:
    """The provider answers with a page in place of its keys: the log-in says so, and works once it has them again."""
    port = free_port()
    with running_provider() as provider:
        settings = {
            "DISPATCHER_CONSOLE_URL": f"http://127.0.0.1:{port}",
            "DISPATCHER_CONSOLE_OIDC_ISSUER": provider.issuer,
            "DISPATCHER_CONSOLE_OIDC_CLIENT_ID": CLIENT,
            "DISPATCHER_CONSOLE_OIDC_CLIENT_SECRET": SECRET,
            "DISPATCHER_CONSOLE_ROLES": ROLES,
        }
        with (
            console(world.stack, "--port", str(port), **settings) as found,
            httpx.Client(base_url=found.url) as client,
        ):
            keys, provider.keys = provider.keys, "<h1>Sorry</h1>"
            answer = signed_on(client, provider)
            assert (400, True) == (answer.status_code, "does not answer as it should" in answer.text)
            provider.keys = {"keys": [{"kty": "new"}, 1, {"kty": "RSA", "n": "!", "kid": "first"}]}
            answer = signed_on(client, provider)
            assert (400, True) == (answer.status_code, "a key that it does not publish" in answer.text)
            provider.keys = keys
            assert signed_on(client, provider).status_code == 303


def test_a_public_client_behind_a_proxy_with_tls(world: World) -> None:
    """Without a secret PKCE alone proves the client; the cookies are for https and this host alone, and so is the way back."""
    with running_provider() as provider:
        provider.secret = None
        settings = {
            "DISPATCHER_CONSOLE_URL": "https://console.example.com/console",
            "DISPATCHER_CONSOLE_OIDC_ISSUER": provider.issuer,
            "DISPATCHER_CONSOLE_OIDC_CLIENT_ID": CLIENT,
            "DISPATCHER_CONSOLE_ROLES": ROLES,
        }
        with console(world.stack, **settings) as found:
            sent = httpx.get(f"{found.url}/login/oidc")
            text, *flags = sent.headers["set-cookie"].split("; ")
            assert text.startswith("__Host-dispatcher_log_in=")
            assert "Secure" in flags
            asked = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
            assert asked["redirect_uri"] == "https://console.example.com/console/login/oidc/back"
            back = provider.back(asked).replace("https://console.example.com/console", found.url)
            answer = httpx.get(back, headers={"Cookie": text})
            assert answer.status_code == 303, answer.text
            begun, forgotten = answer.headers.get_list("set-cookie")
            assert begun.startswith("__Host-dispatcher_console=")
            assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(begun.split("; "))
            assert forgotten.startswith("__Host-dispatcher_log_in=; Path=/; Max-Age=0")
            assert not provider.problems


def test_a_provider_that_is_away_is_said_in_one_line(world: World) -> None:
    """Before somebody is sent there, and when they come back."""
    port = free_port()
    with running_provider() as provider:
        settings = {
            "DISPATCHER_CONSOLE_URL": f"http://127.0.0.1:{port}",
            "DISPATCHER_CONSOLE_OIDC_ISSUER": provider.issuer,
            "DISPATCHER_CONSOLE_OIDC_CLIENT_ID": CLIENT,
            "DISPATCHER_CONSOLE_ROLES": ROLES,
        }
        with console(world.stack, "--port", str(port), **settings) as found:
            with httpx.Client(base_url=found.url) as client:
                back = provider.back(asked_by(client))
                provider.close()
                answer = client.get(back)
            assert answer.status_code == 400
            assert "the identity provider does not answer as it should" in answer.text
        with console(world.stack, "--port", str(port), **settings) as found:
            answer = httpx.get(f"{found.url}/login/oidc")
            assert answer.status_code == 400
            assert "the identity provider does not answer as it should" in answer.text
