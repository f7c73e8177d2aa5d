"""OAuth 2.0 client credentials of a subscription, by real workers, a real token server and the commands that an operator types."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.fernet import Fernet

from tests.acceptance.stack import Stack, free_port, wait_until
from tests.acceptance.terminal import Terminal
from tests.acceptance.test_subscription_proof import Receivers, add

HUSH = "hush-hush-1"
OAUTH2 = ("--auth", "oauth2", "--auth-user", "dispatcher", "--auth-scope", "callbacks:write b")
IN_CRM = ("subscription", "update", "acme", "crm")


class TokenServer:
    """Listens on a port of its own while it is up; gives granted-1, granted-2 and so on to who has the secret."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/token?tenant=hush-tenant"
        self.forms: list[str] = []

    @contextmanager
    def up(self) -> Iterator[None]:
        """Until the block ends."""
        forms = self.forms

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Grants a token."""
                forms.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                document = {
                    "access_token": f"granted-{len(forms)}",
                    "token_type": "Bearer",
                    "expires_in": 3600,
                }
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def tokens() -> TokenServer:
    """A token server that is not up yet."""
    return TokenServer()


def test_a_token_server_that_goes_down_and_comes_back(stack: Stack, tokens: TokenServer) -> None:
    """Callbacks wait with the error `auth`, others go on, and all are delivered; no secret is to be read anywhere."""
    receivers = Receivers(stack)
    stack.environment |= {
        "DISPATCHER_SECRET_KEYS": Fernet.generate_key().decode(),
        "DISPATCHER_BREAKER_FAILURES": "2",
        "DISPATCHER_BREAKER_PAUSE_SECONDS": "0.3",
        "SUBSCRIPTION_AUTH_SECRET": HUSH,
    }
    stack.add_workspace()
    add(stack, "crm", *OAUTH2, "--auth-token-url", tokens.url, "--retry-schedule", "0" + ",1s" * 15)
    worker = stack.start_worker().wait_ready()
    with tokens.up():
        events = stack.enqueue(20)
        assert stack.wait_ended([f"{one}.crm" for one in events]) == {"delivered": 20}
        assert tokens.forms == ["grant_type=client_credentials&scope=callbacks%3Awrite+b"]
        assert stack.cli_json("subscription", "ping", "acme", "crm")["taken"] is True

    stack.cli(*IN_CRM, *OAUTH2, "--auth-token-url", tokens.url, "--auth-secret", "-", stdin=f"{HUSH}-2\n")
    later = stack.enqueue(5, first=20)
    assert stack.wait_ended(later) == {"delivered": 5}
    stuck = [f"{one}.crm" for one in later]
    wait_until(lambda: stack.event(stuck[0])["attempts"], what="one has failed")
    wait_until(lambda: "endpoint.paused" in worker.log, what="the breaker pauses the endpoint")
    shown = stack.cli("event", "show", stuck[0], "--workspace", "acme")
    assert "token server: connect (" in shown.stdout
    [endpoint] = [one for one in stack.cli_json("endpoint", "list") if one.get("subscription") == "crm"]
    assert endpoint["problem"] == "cannot prove who we are (auth)"
    assert endpoint["lastAnswer"].startswith("token server: connect (")
    done = stack.cli("subscription", "ping", "acme", "crm", "--json")
    ping = json.loads(done.stdout)
    assert (done.returncode, ping["error"], ping["httpStatus"]) == (1, "auth", None)
    assert ping["detail"].startswith("token server: connect (")
    with tokens.up():
        assert stack.wait_ended(stuck, seconds=60) == {"delivered": 5}
    tried = [attempt for one in stuck for attempt in stack.event(one)["attempts"]]
    assert {attempt["error"] for attempt in tried} == {"auth", None}
    assert receivers.authorizations() == {
        "/hooks": {None},
        "/crm": {"Bearer granted-1", "Bearer granted-2", "Bearer granted-3"},  # one for the ping
    }
    said = worker.log + shown.stdout + done.stdout + done.stderr
    for command in (("subscription", "show", "acme", "crm", "--reveal"), ("audit", "list", "--json")):
        said += stack.cli(*command).stdout
    stored = b"".join(stack.redis.hgetall("dispatcher:workspace:acme").values()).decode()
    for secret in (HUSH, "granted-", "hush-tenant"):
        assert secret not in said
        assert secret not in stored


def test_what_is_shown(stack: Stack) -> None:
    """Kind, scope, and the token URL without its query, in `show` and in the trail."""
    stack.environment["SUBSCRIPTION_AUTH_SECRET"] = HUSH
    stack.add_workspace()
    add(stack, "crm")
    url = f"{stack.listen()}/token"
    stack.cli(*IN_CRM, *OAUTH2, "--auth-token-url", f"{url}?tenant=1")
    shown = stack.cli_json("subscription", "show", "acme", "crm")
    assert (shown["auth"], shown["tokenUrl"], shown["scope"]) == ("oauth2", f"{url}?…", "callbacks:write b")
    stack.cli(*IN_CRM, *OAUTH2, "--auth-token-url", f"{url}?tenant=1", "--auth-audience", "x")
    stack.cli(*IN_CRM, *OAUTH2, "--auth-token-url", f"{url}/2")
    stack.cli(*IN_CRM, "--auth", "none")
    assert "tokenUrl" not in stack.cli_json("subscription", "show", "acme", "crm")
    trail = [(one["from"], one["to"]) for one in stack.cli_json("audit", "list")][:4]
    assert trail == [
        (
            {"auth": "oauth2", "tokenUrl": f"{url}/2"},
            {"subscription": "crm", "auth": "none", "tokenUrl": None},
        ),
        ({"tokenUrl": f"{url}?…"}, {"subscription": "crm", "tokenUrl": f"{url}/2", "authChanged": True}),
        ({}, {"subscription": "crm", "authChanged": True}),
        (
            {"auth": "none", "tokenUrl": None},
            {"subscription": "crm", "auth": "oauth2", "tokenUrl": f"{url}?…"},
        ),
    ]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://nothing.invalid/token", "warning: no address found for the token URL's host"),
    ],
)
def test_a_token_url_that_cannot_be_reached_from_here(stack: Stack, url: str, says: str) -> None:
    """It is taken with a warning, and without one by --no-check."""
    stack.environment["SUBSCRIPTION_AUTH_SECRET"] = HUSH
    stack.add_workspace()
    done = stack.cli("subscription", "update", "acme", "default", *OAUTH2, "--auth-token-url", url)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1].startswith(says)
    assert stack.cli_json("subscription", "show", "acme", "default")["tokenUrl"] == url
    unchecked = stack.cli(
        "subscription", "update", "acme", "default", *OAUTH2, "--auth-token-url", f"{url}/2", "--no-check"
    )
    assert unchecked.returncode == 0
    assert "warning" not in unchecked.stderr


def test_a_token_url_that_would_be_blocked(stack: Stack) -> None:
    """It is refused like a callback URL, unless workers have other settings than this command."""
    stack.environment["SUBSCRIPTION_AUTH_SECRET"] = HUSH
    stack.add_workspace()
    words = (
        "subscription",
        "update",
        "acme",
        "default",
        *OAUTH2,
        "--auth-token-url",
        "http://10.0.0.1/token",
    )
    done = stack.cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "token URL would be blocked: 10.0.0.1" in done.stderr
    assert stack.cli_json("subscription", "show", "acme", "default")["auth"] == "none"
    assert stack.cli(*words, "--no-check").returncode == 0


def test_a_client_secret_typed_on_a_terminal(stack: Stack) -> None:
    """It is asked for by its name, and not shown while it is typed."""
    stack.add_workspace()
    options = (*OAUTH2, "--auth-token-url", f"{stack.listen()}/token")
    terminal = Terminal(stack, "subscription", "update", "acme", "default", *options)
    wait_until(lambda: "Client secret:" in terminal.text, what="it is asked for")
    terminal.type(f"{HUSH}\n")
    assert terminal.wait() == 0
    assert HUSH not in terminal.text
    assert HUSH.encode() in stack.redis.hget("dispatcher:workspace:acme", "auth")


TO = "--auth-token-url http://127.0.0.1:1/t"
TYPING_ERRORS = {
    f"--auth oauth2 {TO} --auth-secret hush": "--auth oauth2 needs --auth-user",
    "--auth oauth2 --auth-user a --auth-secret hush": "--auth oauth2 needs --auth-token-url",
    f"--auth oauth2 --auth-user a {TO}": "--auth oauth2 needs its secret: set SUBSCRIPTION_AUTH_SECRET",
    "--auth oauth2 --auth-user a --auth-secret hush --auth-token-url ftp://a/": "the token URL must start with",
    "--auth oauth2 --auth-user a --auth-secret hush --auth-token-url http://u:hush@a/": "must not carry a user name",
    f'--auth oauth2 --auth-user a --auth-secret hush {TO} --auth-scope a"': "the scope of auth oauth2 is words",
    f"--auth oauth2 --auth-user a --auth-secret hush {TO} --auth-audience ä": "the audience of auth oauth2",
    f"--auth oauth2 --auth-user a --auth-secret hush {TO} --header Authorization:x": "exclude each other",
    f"--auth basic --auth-user a --auth-secret hush {TO}": "go with --auth oauth2",
    "--auth bearer --auth-secret hush --auth-scope a": "go with --auth oauth2",
    "--auth none --auth-audience a": "go with --auth oauth2",
    "--auth-scope a": "go with --auth oauth2",
    TO: "go with --auth oauth2",
    "--auth-scope=": "'--auth-scope': it is empty",
}


def test_typing_errors(stack: Stack) -> None:
    """Each gets one line without the secret and exit code 2, and changes nothing."""
    stack.add_workspace()
    before = stack.redis.hgetall("dispatcher:workspace:acme")
    for words, says in TYPING_ERRORS.items():
        done = stack.cli("subscription", "update", "acme", "default", *words.split())
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
        [line] = done.stderr.splitlines()
        assert says in line
        assert "hush" not in line
    assert stack.redis.hgetall("dispatcher:workspace:acme") == before


def test_http_is_for_those_who_allow_it(stack: Stack) -> None:
    """A token URL must be https, as a callback URL must."""
    stack.add_workspace()
    stack.environment["DISPATCHER_ALLOW_HTTP"] = "false"
    words = f"--auth oauth2 --auth-user a --auth-secret hush {TO}".split()
    done = stack.cli("subscription", "update", "acme", "default", *words)
    assert done.returncode == 2
    assert "the token URL must be https (DISPATCHER_ALLOW_HTTP=true allows http)" in done.stderr
