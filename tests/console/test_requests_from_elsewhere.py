"""Requests that no page of the console makes: forged, by other names, by other methods, too large, too many."""

import http.client
import re
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tasks.console.app import HEADERS
from tasks.console.site import PAGES
from tests.acceptance.stack import wait_until
from tests.console.conftest import World
from tests.console.world import ask, console, get

ACTIONS = sorted({one.path for one in PAGES if "POST" in one.methods and not one.public})
FORGED = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port or subdomain": {"Sec-Fetch-Site": "same-site"},
    "typed": {"Sec-Fetch-Site": "none"},
    "a sandboxed frame": {"Origin": "null"},
    "another origin": {"Origin": "https://evil.example"},
    "a broken origin": {"Origin": "http://["},
    "a part of ours": {"Origin": "http://127.0.0.1"},
    "nothing said": {},
}


def raw(url: str, head: str, body: bytes = b"") -> tuple[int, dict[str, str], str]:
    """The answer to a request whose head is sent as it is."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    connection.connect()
    connection.sock.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body)
    answer = http.client.HTTPResponse(connection.sock, method=head.partition(" ")[0])
    answer.begin()
    try:
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("by", FORGED)
def test_no_action_follows_from_another_sites_page(world: World, by: str) -> None:
    cookie = world.cookie("admin")
    host = urlsplit(world.url).netloc
    for path in ACTIONS:
        for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            given = {"Host": host, "Cookie": cookie, "Content-Type": kind, "Content-Length": "0"} | FORGED[by]
            head = f"POST {path} HTTP/1.1\n" + "".join(f"{k}: {v}\n" for k, v in given.items())
            status, _, text = raw(world.url, head)
            assert (status, "another site's page" in text) == (403, True), (path, text)


def test_an_action_is_asked_for_by_post_alone(world: World) -> None:
    cookie = world.cookie("admin")
    for path in ACTIONS:
        for method in ("GET", "HEAD") if path != "/signature" else ():
            status, *_ = ask(method, world.url + path, None, Cookie=cookie, X_HTTP_Method_Override="POST")
            assert status == 405, (method, path)
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post"):
            status, *_ = ask(method, world.url + path, None, Cookie=cookie, Sec_Fetch_Site="same-origin")
            assert status == 405, (method, path)


def test_a_form_of_another_kind_is_refused(world: World) -> None:
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x", ""):
        status, *_ = ask("POST", f"{world.url}/endpoint/stop", {"owner": "acme"}, Cookie=world.cookie("admin"), Content_Type=kind)  # fmt: skip
        assert status == 415, kind


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "",
     "evil.example/@localhost", "localhost@evil.example", "[", "localhost:80:80", "0x7f.1", "[::1]evil"],
)  # fmt: skip
def test_it_is_not_served_by_another_name(world: World, host: str) -> None:
    status, headers, text = raw(world.url, f"GET /login HTTP/1.1\nHost: {host}\n")
    assert status in (400, 421), (status, headers, text)
    assert "location" not in headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1:1", "[::1]:8090", "127.3.2.1"])
def test_it_is_served_by_the_names_of_this_machine_at_any_port_of_a_tunnel(world: World, host: str) -> None:
    assert raw(world.url, f"GET /login HTTP/1.1\nHost: {host}\n")[0] == 200


def test_it_is_served_by_the_name_of_its_url(world: World) -> None:
    with console(world.stack, DISPATCHER_CONSOLE_URL="https://console.example") as named:
        for host in ("console.example", "Console.Example:443", "localhost:1"):
            assert raw(named.url, f"GET /login HTTP/1.1\nHost: {host}\n")[0] == 200
        assert raw(named.url, "GET /login HTTP/1.1\nHost: evil.example\n")[0] == 421


def test_health_is_told_by_any_name(world: World) -> None:
    assert raw(world.url, "GET /healthz HTTP/1.1\nHost: 10.1.2.3:8090\n")[0] == 200


@pytest.mark.parametrize(
    "to",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "javascript:alert(1)",
     "/ok\r\nSet-Cookie: a=b", "/\N{FULLWIDTH SOLIDUS}evil.example", "///evil.example", "/%0d%0aSet-Cookie:a=b", "/..//evil.example"],
)  # fmt: skip
def test_the_log_in_leads_nowhere_else(world: World, to: str) -> None:
    status, headers, _ = ask("POST", f"{world.url}/login", {"key": world.keys["viewer"], "to": to})
    assert status == 303
    assert headers["location"].startswith("/")
    assert not headers["location"].startswith(("//", "/\\"))
    assert headers["set-cookie"].startswith("dispatcher_console=")


@pytest.mark.parametrize(
    "path", ["//evil.example/", "//evil.example/..", "/callbacks/", "/work/x/", "/%0d%0aX:y/"]
)
def test_no_path_leads_elsewhere(world: World, path: str) -> None:
    host = urlsplit(world.url).netloc
    status, headers, _ = raw(
        world.url, f"GET {path} HTTP/1.1\nHost: {host}\nCookie: {world.cookie('viewer')}\n"
    )
    assert status == 404
    assert "location" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "..%5capp.py",
        "....//app.py",
        "/etc/passwd",
        "%00",
        "..;/app.py",
        "",
    ],
)
def test_no_other_file_is_served(world: World, path: str) -> None:
    status, _, text = raw(world.url, f"GET /static/{path} HTTP/1.1\nHost: localhost\n")
    assert status == 404
    assert "import" not in text
    assert "/static/static" not in text  # its style sheet is found too


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nothing", "/static/console.js", "/static/no", "/portal/enter", "/live/events"]
)
def test_every_answer_is_private_and_cannot_be_framed(world: World, path: str) -> None:
    _, headers, _ = raw(
        world.url, f"HEAD {path} HTTP/1.1\nHost: localhost\nCookie: {world.cookie('viewer')}\n"
    )
    for name, value in HEADERS.items():
        assert headers[name.lower()] == value


def test_cookies_cannot_be_read_by_scripts_and_not_be_set_for_other_hosts(world: World) -> None:
    form = {"key": world.keys["viewer"]}
    _, headers, _ = ask("POST", f"{world.url}/login", form)
    assert re.fullmatch(
        r"dispatcher_console=[\w-]{43}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax", headers["set-cookie"]
    )
    with console(world.stack, DISPATCHER_CONSOLE_URL="https://console.example") as named:
        _, headers, _ = ask("POST", f"{named.url}/login", form)
        assert re.fullmatch(
            r"__Host-dispatcher_console=[\w-]{43}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure",
            headers["set-cookie"],
        )


def test_forms_are_no_longer_than_they_need_be(world: World) -> None:
    status, _, text = ask("POST", f"{world.url}/login", {"key": "x" * 70_000})
    assert (status, "longer than" in text) == (413, True)
    status, *_ = ask("POST", f"{world.url}/signature", {"body": "x" * 70_000}, Cookie=world.cookie("viewer"))
    assert status == 400  # it lacks a workspace, but is not too long
    status, *_ = ask("POST", f"{world.url}/signature", {"body": "x" * 530_000}, Cookie=world.cookie("viewer"))
    assert status == 413  # it would be read and compared while all others wait


def test_a_person_cannot_take_all_connections_by_live_pages(world: World) -> None:
    cookie, where = world.cookie("viewer"), urlsplit(world.url)
    opened: list[http.client.HTTPConnection] = []
    statuses = []
    for _ in range(20):
        one = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        one.request("GET", "/live/events", headers={"Cookie": cookie})
        answer = one.getresponse()
        statuses.append(answer.status)
        if answer.status == 200:
            answer.readline()
        opened.append(one)
    assert statuses == [200] * 16 + [429] * 4
    assert get(f"{world.url}/live/events", Cookie=world.cookie("operator"))[0] == 200  # others may
    for one in opened:
        one.close()


def test_much_work_of_one_person_drops_their_own_oldest_counts(world: World) -> None:
    cookie = world.cookie("operator")
    for _ in range(12):
        status, *_ = ask("POST", f"{world.url}/callbacks/replay", {"state": "failed"}, Cookie=cookie)
        assert status in (303, 400)
    _, _, text = get(f"{world.url}/work", Cookie=cookie)
    assert 1 <= text.count('class="state ready"') + text.count('class="state counting"') <= 5


def test_more_connections_than_the_limit_are_told_so(world: World) -> None:
    """Probes are answered nevertheless."""
    with console(world.stack, DISPATCHER_API_MAX_CONNECTIONS="3") as found, ExitStack() as open_:
        where = urlsplit(found.url)
        for _ in range(3):
            open_.enter_context(socket.create_connection((where.hostname or "", where.port or 0))).sendall(
                b"G"
            )
        wait_until(lambda: get(f"{found.url}/login")[0] == 503, what="refused")
        status, headers, text = get(f"{found.url}/login")
        assert (503, "5") == (status, headers["retry-after"])
        assert "too many connections, try again" in text
        assert 200 == get(f"{found.url}/healthz")[0]
