"""Who gets into the console, how, and what they may do: real processes, without a browser."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio

from dispatcher.store.keys import Keys
from dispatcher.store.sessions import Session, Sessions
from tasks.console.access import Role
from tasks.console.app import HEADERS
from tasks.console.pages import ALL
from tasks.console.site import PAGES, PORTAL, Page
from tests.acceptance.stack import Stack, running_stack
from tests.console.conftest import World
from tests.console.world import ConsoleProcess, console, key_for, run_apart

KEYS = Keys("dispatcher")
OPERATORS = [one for one in PAGES if one.role is not Role.CUSTOMER]
PUBLIC = {"/login", "/login/oidc", "/login/oidc/back", "/enter"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ELSEWHERE = "another site"

assert ALL


def path_of(page: Page) -> str:
    """A path that leads to a page."""
    return page.path.replace("{id}", "x")


def name_of(page: Page) -> str:
    """The name of a test's case."""
    return f"{page.methods[0]} {page.path}"


def cases(of: Sequence[Page]) -> Any:
    """One case for each page."""
    return pytest.mark.parametrize("page", of, ids=name_of)


def browser(url: str, source: str = "127.0.0.1") -> httpx.Client:
    """A browser's cookies and headers without a browser; `source` is its address."""
    headers = {"Sec-Fetch-Site": "same-origin"}
    transport = httpx.HTTPTransport(local_address=source)
    return httpx.Client(base_url=url, timeout=30, headers=headers, transport=transport)


def logged_in(url: str, key: str) -> httpx.Client:
    """A browser with a session."""
    found = browser(url)
    answer = found.post("/login", data={"key": key})
    assert answer.status_code == 303, answer.text
    return found


def is_in(client: httpx.Client) -> bool:
    """Whether somebody is logged in."""
    answer = client.get("/account")
    assert answer.status_code in (200, 303), answer.text
    return answer.status_code == 200


def shown(client: httpx.Client) -> tuple[str, str]:
    """Name and role on the account page."""
    text = client.get("/account").text
    return tuple(text.partition(f"<dt>{name}</dt><dd>")[2].partition("<")[0] for name in ("name", "role"))  # type: ignore[return-value]


def text_of(client: httpx.Client) -> str:
    """The text of its session."""
    return client.cookies["dispatcher_console"]


def with_sessions(stack: Stack, work: Callable[[Sessions], Awaitable[Any]]) -> Any:
    """Does something with the sessions in Redis."""

    async def run() -> Any:
        client = redis.asyncio.Redis.from_url(stack.server.url)
        try:
            return await work(Sessions(client.execute_command, KEYS))
        finally:
            await client.aclose()

    return run_apart(run())


@pytest.fixture
def as_(world: World) -> Iterator[Callable[[str], httpx.Client]]:
    """Browsers of people with a role."""
    clients: list[httpx.Client] = []

    def new(role: str) -> httpx.Client:
        clients.append(logged_in(world.url, world.keys[role]))
        return clients[-1]

    yield new
    for one in clients:
        one.close()


@pytest.fixture
def outside(world: World) -> Iterator[httpx.Client]:
    """A browser that is logged out."""
    with browser(world.url) as found:
        yield found


@pytest.fixture
def customer(world: World) -> Iterator[httpx.Client]:
    """A browser of a customer of acme."""
    now = int(time.time() * 1000)
    session = Session("portal:acme", "acme", "customer", now, now + 3_600_000, workspace="acme")
    link = with_sessions(world.stack, lambda sessions: sessions.offer(session, 300_000))
    with browser(world.url) as found:
        assert found.get(f"{PORTAL}/enter", params={"link": link}).status_code == 303
        yield found


@pytest.fixture(scope="module")
def bare(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Redis with nothing in it, and no worker."""
    with running_stack(tmp_path_factory.mktemp("bare")) as stack:
        yield stack


# --- Logging in


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_a_key_logs_in_with_its_role(world: World, as_: Callable[[str], httpx.Client], role: str) -> None:
    assert shown(as_(role)) == (f"{role}&#39;s", role)


def test_a_wrong_key_does_not(bare: Stack) -> None:
    """Whatever is typed: one answer, and no cookie."""
    key = key_for(bare, "admin")
    wrong = (
        "",
        "x",
        "key_000000000000." + "A" * 43,
        key[:-1],
        key + "A",
        key.upper(),
        "é" * 50,
        "A" * 60_000,
        "\x00\n",
    )
    with console(bare) as found, browser(found.url) as client:
        answers = [client.post("/login", data={"key": given}) for given in wrong]
        assert {403} == {one.status_code for one in answers}
        assert {True} == {"this key is not valid here" in one.text for one in answers}
        assert 400 == client.post("/login", content=b"key=\xff\xfe%00", headers=FORM).status_code
        assert not client.cookies


def test_other_keys_than_consoles_do_not_log_in(world: World, outside: httpx.Client) -> None:
    """A customer's key and a backend's key open the API, not the console."""
    for command in (("workspace", "api-key", "add", "acme"), ("producer-key", "add", "billing")):
        key = world.stack.cli_json(*command)["apiKey"]
        assert outside.post("/login", data={"key": key}).status_code == 403
    assert not is_in(outside)


def test_failed_log_ins_are_limited(bare: Stack) -> None:
    """After ten within a minute from one address, wrong keys have to wait there, and are told for how long; a right one need not."""
    key = key_for(bare, "viewer")
    with console(bare) as found, browser(found.url) as client, browser(found.url, "127.0.0.2") as other:
        wrong = [client.post("/login", data={"key": "wrong"}) for _ in range(11)]
        assert [403] * 10 + [429] == [one.status_code for one in wrong]
        assert 1 <= int(wrong[-1].headers["retry-after"]) <= 60
        assert f"try again in {wrong[-1].headers['retry-after']} s" in wrong[-1].text
        assert other.post("/login", data={"key": "wrong"}).status_code == 403
        assert client.post("/login", data={"key": key}).status_code == 303


def test_a_known_id_costs_the_same_commands_as_an_unknown_one(bare: Stack) -> None:
    """Else the time of an answer would tell which ids there are."""
    key = key_for(bare, "viewer")
    wrong = [key[:-43] + "A" * 43, "key_" + "0" * 12 + "." + "A" * 43]
    with console(bare) as found, browser(found.url) as client:
        client.post("/login", data={"key": wrong[0]})  # opens what is opened once
        counted = [  # the fewest of three: the console looks at Redis every two seconds
            min(
                (
                    commands_of(bare, lambda key=key: client.post("/login", data={"key": key}))
                    for _ in range(3)
                ),
                key=len,
            )
            for key in wrong
        ]
    assert counted[0] == counted[1]
    assert any(one.startswith("HGETALL") for one in counted[0]), counted


def commands_of(stack: Stack, act: Callable[[], httpx.Response]) -> list[str]:
    """The commands that Redis gets meanwhile, by name and number of arguments."""
    found: list[str] = []
    handshake = {"HELLO", "CLIENT", "SELECT", "AUTH", "PING"}  # of a connection that happens to be opened now
    with redis.Redis.from_url(stack.server.url) as client, client.monitor() as monitor:
        assert act().status_code == 403
        stack.redis.echo("the end")
        for one in monitor.listen():
            words = one["command"].split()
            if words[0] == "ECHO":
                return found
            if words[0] not in handshake:
                found.append(f"{words[0]} {len(words)}")
    raise AssertionError("no end")


def test_a_session_that_a_browser_brings_is_never_taken_over(world: World, outside: httpx.Client) -> None:
    """Each log-in has a new text, and ends the session that the browser had."""
    outside.cookies.set("dispatcher_console", "prepared-by-somebody")
    assert not is_in(outside)
    texts = []
    for role in ("viewer", "admin"):
        answer = outside.post("/login", data={"key": world.keys[role]})
        texts.append(answer.headers["set-cookie"].partition("=")[2].partition(";")[0])
        outside.cookies.clear()
        outside.cookies.set("dispatcher_console", texts[-1])
        assert shown(outside)[1] == role
    assert len({"prepared-by-somebody", *texts}) == 3
    with browser(world.url) as other:
        other.cookies.set("dispatcher_console", texts[0])
        assert not is_in(other)


def test_the_cookie_is_for_the_server_alone(world: World, outside: httpx.Client) -> None:
    """And its text is not in Redis: who reads Redis has no sessions."""
    answer = outside.post("/login", data={"key": world.keys["viewer"]})
    text, *flags = answer.headers["set-cookie"].split("; ")
    assert {"Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=43200"} == set(flags)
    found = text.partition("=")[2]
    assert len(found) == 43
    for key in world.stack.redis.scan_iter("dispatcher:*session*"):
        assert found not in key.decode()
        assert found.encode() not in world.stack.redis.dump(key)
    assert 0 < world.stack.redis.pttl(session_key(found)) <= 43_200_000


def session_key(text: str) -> str:
    """Where Redis has a session."""
    return KEYS.session(sha256(text.encode()).hexdigest())


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example",
        "///evil.example",
        "https://evil.example",
        "https:evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\n//evil.example",
        "/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "evil.example",
        " //evil.example",
        "/\x00/evil.example",
    ],
)
def test_no_log_in_leads_to_another_site(world: World, outside: httpx.Client, to: str) -> None:
    """Neither the form's path nor the link's that leads to the form."""
    form = outside.get("/login", params={"to": to})
    assert '<input type="hidden" name="to" value="/">' in form.text
    answer = outside.post("/login", data={"key": world.keys["viewer"], "to": to})
    assert (303, "/") == (answer.status_code, answer.headers["location"])
    assert ["dispatcher_console"] == list(outside.cookies)


def test_a_log_in_leads_back_to_the_page_that_was_asked_for(world: World, outside: httpx.Client) -> None:
    asked = "/callbacks?state=failed&workspace=acme"
    sent = outside.get(asked)
    form = outside.get(sent.headers["location"])
    assert '<input type="hidden" name="to" value="/callbacks?state=failed&amp;workspace=acme">' in form.text
    answer = outside.post("/login", data={"key": world.keys["viewer"], "to": asked})
    assert asked == answer.headers["location"]


# --- The end of sessions


def test_logging_out_ends_this_session(as_: Callable[[str], httpx.Client]) -> None:
    """On the server too: the text opens nothing any more."""
    here, there = as_("viewer"), as_("viewer")
    text = text_of(here)
    assert here.post("/logout", headers=FORM).headers["location"] == "/login"
    assert not here.cookies
    here.cookies.set("dispatcher_console", text)
    assert not is_in(here)
    assert is_in(there)


def test_logging_out_everywhere_ends_ones_own_sessions(as_: Callable[[str], httpx.Client]) -> None:
    """Those of others stay."""
    here, there, other = as_("viewer"), as_("viewer"), as_("operator")
    here.post("/logout", data={"everywhere": "1"})
    assert (False, False, True) == (is_in(here), is_in(there), is_in(other))
    assert is_in(as_("viewer"))


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_only_admins_end_the_sessions_of_all(as_: Callable[[str], httpx.Client], role: str) -> None:
    here, other = as_(role), as_("admin")
    assert here.post("/logout", data={"everybody": "1"}).status_code == 403
    assert (True, True) == (is_in(here), is_in(other))


def test_an_admin_ends_the_sessions_of_all(world: World, as_: Callable[[str], httpx.Client]) -> None:
    """Customers' too; and it is in the log of actions."""
    clients = [as_(role) for role in ("viewer", "operator", "admin")]
    clients[2].post("/logout", data={"everybody": "1"})
    assert [False] * 3 == [is_in(one) for one in clients]
    assert "console.end_all_sessions" in as_("viewer").get("/log").text


def test_a_revoked_key_ends_its_sessions(world: World, as_: Callable[[str], httpx.Client]) -> None:
    """At once, and no others."""
    key = key_for(world.stack, "operator")
    with closing(logged_in(world.url, key)) as leaver:
        other = as_("operator")
        assert is_in(leaver)
        assert world.stack.cli("console-key", "revoke", key.partition(".")[0]).returncode == 0
        assert (False, True) == (is_in(leaver), is_in(other))
        assert leaver.post("/login", data={"key": key}).status_code == 403


def test_a_session_that_is_over_opens_nothing(world: World, as_: Callable[[str], httpx.Client]) -> None:
    """A page sends the browser to the log-in and knows the way back; what a script asks for is told 401."""
    client = as_("viewer")
    key = session_key(text_of(client))
    stored = json.loads(world.stack.redis.get(key))
    world.stack.redis.set(key, json.dumps(stored | {"ends_ms": int(time.time() * 1000) - 1}))
    page = client.get("/endpoints?state=trouble")
    assert (303, "/login?to=%2Fendpoints%3Fstate%3Dtrouble") == (page.status_code, page.headers["location"])
    assert client.get("/endpoints", headers={"Sec-Fetch-Dest": "empty"}).status_code == 401
    assert client.post("/logout", headers=FORM).status_code == 401


@pytest.mark.parametrize("stored", ['{"who": 1}', "not JSON", "[]"])
def test_a_session_that_cannot_be_read_opens_nothing(
    world: World, as_: Callable[[str], httpx.Client], stored: str
) -> None:
    client = as_("viewer")
    world.stack.redis.set(session_key(text_of(client)), stored)
    assert not is_in(client)


# --- Nothing is reachable without


def test_what_is_public_is_named_here() -> None:
    assert {one.path for one in PAGES if one.public} == PUBLIC


@cases([one for one in OPERATORS if not one.public])
def test_nothing_is_reachable_without_a_log_in(outside: httpx.Client, page: Page) -> None:
    answer = outside.request(page.methods[0], path_of(page), headers=FORM)
    if page.methods == ("GET",):
        assert answer.status_code == 303
        assert answer.headers["location"].partition("?")[0] == "/login"
        assert not answer.text
    else:
        assert answer.status_code == 401
        assert "log in again" in answer.text


@cases([one for one in PAGES if one.customers and not one.public])
def test_nothing_of_the_portal_is_reachable_without_a_link(
    outside: httpx.Client, as_: Callable[[str], httpx.Client], page: Page
) -> None:
    """Neither with an operator's session, which is another cookie."""
    for client in (outside, as_("admin")):
        answer = client.request(page.methods[0], PORTAL + path_of(page), headers=FORM)
        assert answer.status_code == 401
        assert "open the portal again" in answer.text


@cases(OPERATORS)
def test_a_customers_session_opens_no_page_of_operators(customer: httpx.Client, page: Page) -> None:
    """Also if its text is put in the operators' cookie."""
    if page.public:
        return
    assert customer.get(f"{PORTAL}/account").status_code == 200
    customer.cookies.set("dispatcher_console", customer.cookies["dispatcher_portal"])
    answer = customer.request(page.methods[0], path_of(page), headers=FORM)
    assert answer.status_code in (303, 401)


def test_an_operators_session_opens_no_page_of_the_portal(as_: Callable[[str], httpx.Client]) -> None:
    """Also if its text is put in the portal's cookie: an admin has no workspace."""
    client = as_("admin")
    client.cookies.set("dispatcher_portal", text_of(client))
    assert client.get(f"{PORTAL}/callbacks").status_code == 401


def test_what_is_left_is_the_health_and_the_looks(outside: httpx.Client) -> None:
    """And no file beside the looks."""
    assert (200, "ok\n") == ((answer := outside.get("/healthz")).status_code, answer.text)
    assert outside.get("/static/console.css").status_code == 200
    for path in (
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/",
        "/docs",
        "/openapi.json",
        "/metrics",
    ):
        answer = outside.get(path)
        assert answer.status_code == 404, path
        assert "import" not in answer.text


# --- Roles


@cases([one for one in PAGES if one.role >= Role.OPERATOR and not one.public])
def test_a_viewer_may_not_act(as_: Callable[[str], httpx.Client], page: Page) -> None:
    answer = as_("viewer").request(page.methods[0], path_of(page), headers=FORM)
    assert answer.status_code == 403
    assert f"this needs the role {page.role.word}; you are viewer" in answer.text


@cases([one for one in PAGES if one.role is Role.ADMIN])
def test_an_operator_may_not_do_what_admins_do(as_: Callable[[str], httpx.Client], page: Page) -> None:
    answer = as_("operator").request(page.methods[0], path_of(page), headers=FORM)
    assert answer.status_code == 403


def test_an_operator_may_not_rotate_a_secret(world: World, as_: Callable[[str], httpx.Client]) -> None:
    """An admin may, by the same form."""
    form = {"workspace": "globex", "subscription": "default"}
    assert as_("operator").post("/subscription/rotate", data=form).status_code == 403
    assert as_("admin").post("/subscription/rotate", data=form).status_code == 200


def test_each_action_asks_for_a_role() -> None:
    """What a viewer may send is named here: to log out, and to check a signature, which changes nothing."""
    viewers = {one.path for one in PAGES if one.methods == ("POST",) and one.role < Role.OPERATOR}
    assert viewers == {"/logout", "/signature"}
    assert any(one.role is Role.ADMIN and one.path == "/subscription/rotate" for one in PAGES)


# --- Other sites' pages

ACTIONS = [
    (prefix + path_of(one), role)
    for one in PAGES
    if one.methods == ("POST",)
    for prefix, role, is_there in (("", "admin", one in OPERATORS), (PORTAL, "customer", one.customers))
    if is_there
]


@pytest.mark.parametrize(
    "said",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "SELF"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {},
    ],
    ids=str,
)
def test_no_other_sites_page_can_act(
    world: World, as_: Callable[[str], httpx.Client], customer: httpx.Client, said: dict[str, str]
) -> None:
    """Each action, with the cookies of somebody who may do it, by what browsers say of where a form is from."""
    admin = as_("admin")
    for client in (admin, customer):
        del client.headers["Sec-Fetch-Site"]
    headers = {name: value.replace("SELF", world.url) for name, value in said.items()}
    for path, role in ACTIONS:
        client = admin if role == "admin" else customer
        answer = client.post(path, headers=FORM | headers)
        assert (403, True) == (answer.status_code, ELSEWHERE in answer.text), path
    assert is_in(admin)


@pytest.mark.parametrize("path", [path for path, _ in ACTIONS])
def test_a_browser_that_only_says_its_origin_can_act(world: World, outside: httpx.Client, path: str) -> None:
    """It gets as far as the question who it is."""
    del outside.headers["Sec-Fetch-Site"]
    answer = outside.post(path, headers=FORM | {"Origin": world.url})
    assert ELSEWHERE not in answer.text
    assert answer.status_code == (403 if path == "/login" else 401)


def test_a_browser_that_only_says_its_origin_can_log_in(world: World, outside: httpx.Client) -> None:
    del outside.headers["Sec-Fetch-Site"]
    origin = {"Origin": world.url}
    assert outside.post("/login", data={"key": world.keys["viewer"]}, headers=origin).status_code == 303
    assert outside.post("/logout", headers=FORM | origin).headers["location"] == "/login"
    assert not is_in(outside)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_no_other_method_does_anything(as_: Callable[[str], httpx.Client], method: str) -> None:
    client = as_("admin")
    for one in PAGES:
        assert client.request(method, path_of(one)).status_code in (404, 405), one.path
    assert is_in(client)


# --- Headers


OF_ANY_FRAME = {
    name: value
    for name, value in HEADERS.items()
    if name not in ("Content-Security-Policy", "X-Frame-Options")
}
"""Of the page that says that a link was used: it names nobody, and would be blank in a frame otherwise."""


@cases([one for one in PAGES if one.methods == ("GET",)])
def test_each_page_has_the_headers_that_guard_it(
    as_: Callable[[str], httpx.Client], customer: httpx.Client, page: Page
) -> None:
    """Whatever its status is: nothing is kept, framed, sniffed, or loaded from elsewhere."""
    paths = [(as_("admin"), path_of(page))] if page in OPERATORS else []
    paths += [(customer, PORTAL + path_of(page))] if page.customers else []
    for client, path in paths:
        with client.stream("GET", path) as answer:  # some do not end
            wanted = HEADERS if path != f"{PORTAL}/enter" else OF_ANY_FRAME
            assert wanted == {name: answer.headers.get(name) for name in wanted}, path


def test_the_headers_are_what_they_are_for() -> None:
    """Said here again, so that one who loosens them has to say so twice."""
    policy = dict(one.strip().split(" ", 1) for one in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert ("no-store", "nosniff", "DENY") == tuple(
        HEADERS[name] for name in ("Cache-Control", "X-Content-Type-Options", "X-Frame-Options")
    )


def test_also_errors_and_refusals_have_them(world: World, outside: httpx.Client) -> None:
    for answer in (
        outside.get("/nowhere"),
        outside.get("/"),
        outside.put("/login"),
        outside.get("/healthz"),
        outside.get("/static/console.js"),
        outside.get("/static/nothing"),
        outside.post("/login", headers={"Sec-Fetch-Site": "cross-site"}),
    ):
        assert HEADERS == {name: answer.headers.get(name) for name in HEADERS}, answer.url


# --- The header of a proxy


@pytest.fixture(scope="module")
def proxied(world: World) -> Iterator[ConsoleProcess]:
    """A console whose proxy is 127.0.0.2."""
    settings = {
        "DISPATCHER_CONSOLE_PROXIES": "127.0.0.2/32",
        "DISPATCHER_CONSOLE_USER_HEADER": "X-User",
        "DISPATCHER_CONSOLE_GROUPS_HEADER": "X-Groups",
        "DISPATCHER_CONSOLE_ROLES": "viewer:group:staff,operator:jane@example.com,admin:group:on-call",
    }
    with console(world.stack, **settings) as found:
        yield found


@pytest.mark.parametrize(
    ("user", "groups", "role"),
    [
        ("jane@example.com", "", "operator"),
        ("alice", "staff", "viewer"),
        ("alice", "others, staff ,", "viewer"),
        ("jane@example.com", "staff,on-call", "admin"),
        ("on-call", "staff", "viewer"),  # no role of the group by that name
        ("group:on-call", "staff", "viewer"),
    ],
)
def test_a_listed_proxy_says_who_asks(proxied: ConsoleProcess, user: str, groups: str, role: str) -> None:
    """The highest role of the user and the groups counts."""
    with browser(proxied.url, "127.0.0.2") as client:
        client.headers.update({"X-User": user, "X-Groups": groups})
        assert shown(client) == (user, role)
        assert "log out there" in client.get("/account").text


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-User", "")],
        [("X-User", "alice")],
        [("X-User", "alice"), ("X-Groups", "Staff,on-call2,*")],
        [("X-Groups", "on-call")],
        [("X-User", "jane@example.com"), ("X-User", "alice")],
        [("X-User", "alice"), ("X-Groups", "on-call"), ("X-Groups", "others")],
        [("X-User", "a" * 201), ("X-Groups", "on-call")],
        [("X-Forwarded-User", "jane@example.com")],
    ],
    ids=str,
)
def test_whom_a_proxy_does_not_name_in_one_word_is_nobody(
    proxied: ConsoleProcess, headers: list[tuple[str, str]]
) -> None:
    """Of two headers one may be the client's own."""
    with browser(proxied.url, "127.0.0.2") as client:
        assert client.get("/account", headers=headers).status_code == 303


def test_others_headers_are_ignored(world: World, proxied: ConsoleProcess) -> None:
    """Also if they say that they came by the proxy; but they may log in with a key."""
    forged = {"X-User": "jane@example.com", "X-Groups": "on-call", "X-Forwarded-For": "127.0.0.2"}
    with browser(proxied.url) as client:
        client.headers.update(forged | {"Forwarded": "for=127.0.0.2"})
        assert not is_in(client)
        client.post("/login", data={"key": world.keys["viewer"]})
        assert shown(client) == ("viewer&#39;s", "viewer")


def test_a_proxys_user_is_guarded_as_others_are(proxied: ConsoleProcess) -> None:
    """A proxy adds its header to other sites' forms too; and roles hold."""
    with browser(proxied.url, "127.0.0.2") as client:
        client.headers.update({"X-User": "alice", "X-Groups": "staff"})
        answer = client.post("/endpoint/resume", headers=FORM | {"Sec-Fetch-Site": "cross-site"})
        assert ELSEWHERE in answer.text
        assert client.post("/endpoint/resume", headers=FORM).status_code == 403


# --- Starting


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "console.example.com"])
def test_beyond_this_machine_it_wants_its_url(world: World, host: str) -> None:
    """It says so in one line."""
    done = world.stack.cli("console", "--host", host, "--port", "0")
    assert done.returncode != 0
    assert "DISPATCHER_CONSOLE_URL" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_url_that_can_be_read_on_its_way_is_refused(world: World) -> None:
    world.stack.environment["DISPATCHER_CONSOLE_URL"] = "http://console.example.com"
    try:
        done = world.stack.cli("console", "--host", "0.0.0.0", "--port", "0")
    finally:
        del world.stack.environment["DISPATCHER_CONSOLE_URL"]
    assert done.returncode != 0
    assert "write https://" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_without_a_way_to_log_in_it_does_not_start(server_program: str, tmp_path: Any, host: str) -> None:
    """It says how to add one, and with one it starts."""
    with running_stack(tmp_path) as stack:
        stack.environment["DISPATCHER_CONSOLE_URL"] = "https://console.example.com"
        done = stack.cli("console", "--host", host, "--port", "0")
        assert done.returncode != 0
        assert "dispatcher console-key add NAME" in done.stderr
        key = key_for(stack, "viewer")
        with console(stack, "--host", host) as found:
            at = found.url.replace("0.0.0.0", "127.0.0.1")
            with browser(at) as client:
                answer = client.post("/login", data={"key": key})
                assert answer.status_code == 303
                assert answer.headers["set-cookie"].startswith("__Host-dispatcher_console=")
                assert "; Secure" in answer.headers["set-cookie"]


def test_a_provider_whose_answers_could_be_changed_is_refused(world: World) -> None:
    settings = {
        "DISPATCHER_CONSOLE_URL": "https://console.example.com",
        "DISPATCHER_CONSOLE_ROLES": "admin:*",
        "DISPATCHER_CONSOLE_OIDC_CLIENT_ID": "console",
        "DISPATCHER_CONSOLE_OIDC_ISSUER": "http://login.example.com",
    }
    world.stack.environment |= settings
    try:
        done = world.stack.cli("console", "--port", "0")
    finally:
        for name in settings:
            del world.stack.environment[name]
    assert done.returncode != 0
    assert "write DISPATCHER_CONSOLE_OIDC_ISSUER with https://" in done.stderr


def test_the_printed_link_is_for_this_machine_alone(world: World) -> None:
    done = world.stack.cli("console", "--host", "0.0.0.0", "--link", "--port", "0")
    assert done.returncode != 0
    assert "--link is for a console on this machine alone" in done.stderr


def test_the_printed_link_logs_in_as_admin(world: World, outside: httpx.Client) -> None:
    """It names the port that the console got, and its token stands where no server sees it."""
    line = next(
        one for one in world.console.log.read_text().splitlines() if "#token=" in one and world.console.token
    )
    assert f"open {world.url}/login#token={world.console.token}" == line
    assert outside.post("/login", data={"key": world.console.token}).status_code == 303
    assert shown(outside) == ("printed link", "admin")


def test_a_printed_link_is_of_its_process_alone(world: World) -> None:
    """Another console does not take it, and one without a link takes no empty one."""
    with console(world.stack) as found, browser(found.url) as client:
        assert "#token=" not in found.log.read_text()
        for given in (world.console.token, ""):
            assert client.post("/login", data={"key": given}).status_code == 403
