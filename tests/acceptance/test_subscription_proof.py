"""How a subscription's receiver knows us, by real workers, the API's process and the commands that an operator types."""

import base64
import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.fernet import Fernet

from dispatcher import verify
from tests.acceptance.stack import CLI, Stack, Worker, answer_ok, free_port, wait_until
from tests.acceptance.terminal import Terminal
from tests.verifiers import VERIFIERS

HUSH = "hush-hush-1"
BASIC = "Basic " + base64.b64encode(f"acme:{HUSH}".encode()).decode()


@dataclass(frozen=True)
class Request:
    """What came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Receivers:
    """Keeps all requests; answers 200, or as `answers` says for a path."""

    def __init__(self, stack: Stack) -> None:
        self.requests: list[Request] = []
        self.answers: dict[str, web.Response] = {}
        stack.answer = self._answer

    async def _answer(self, request: web.Request, number: int) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(request.path, headers, await request.read()))
        return self.answers.get(request.path) or await answer_ok(request, number)

    def at(self, path: str) -> list[Request]:
        """The requests for a path."""
        return [one for one in self.requests if one.path == path]

    def authorizations(self) -> dict[str, set[str | None]]:
        """The Authorization headers that came, by path."""
        return {
            path: {one.headers.get("authorization") for one in self.at(path)}
            for path in {one.path for one in self.requests}
        }


def add(stack: Stack, name: str, *options: str, url: str = "", stdin: str = "") -> dict[str, Any]:
    """Adds a subscription to acme at a port of its own."""
    url = url or f"{stack.listen()}/{name}"
    made: dict[str, Any] = stack.cli_json(
        "subscription", "add", "acme", name, "--callback-url", url, *options, stdin=stdin
    )
    stack.secrets[f"acme.{name}"] = made["secret"]
    return made


def jwks(port: int, query: str) -> list[dict[str, str]]:
    """The keys that the API tells, to anybody."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/.well-known/jwks.json?{query}") as answer:
        keys: list[dict[str, str]] = json.load(answer)["keys"]
    return keys


def serve_api(stack: Stack) -> int:
    """Starts the API; its port."""
    port = free_port()
    log = stack.folder / "api.log"
    server = Worker(stack, [*CLI, "api", "--port", str(port)], stack.environment, log)
    stack.workers.append(server)

    def is_up() -> bool:
        assert server.process.poll() is None, server.log
        try:
            return jwks(port, "workspace=nobody") == []
        except OSError:
            return False

    wait_until(is_up, what="API up")
    return port


@pytest.mark.parametrize("language", VERIFIERS)
def test_others_verify_with_the_keys_of_the_api(stack: Stack, tmp_path: Path, language: str) -> None:
    """What a worker sends verifies with the key from the API; after a rotation with the old and with the new one."""
    verifies = VERIFIERS[language](tmp_path)
    receivers = Receivers(stack)
    stack.environment["DISPATCHER_SECRET_KEYS"] = Fernet.generate_key().decode()
    stack.add_workspace()
    made = add(stack, "crm", "--signature", "ed25519")
    stack.start_worker().wait_ready()
    [event] = stack.enqueue(1)
    assert stack.wait_ended([event, f"{event}.crm"]) == {"delivered": 2}
    [first] = receivers.at("/crm")
    port = serve_api(stack)
    [key] = jwks(port, "workspace=acme&subscription=crm")
    assert verifies(key, first.headers, first.body)
    assert not verifies(key, first.headers, first.body + b" ")
    assert verify(first.headers, first.body, made["publicKey"])
    assert verify(first.headers, first.body, made["secret"])
    assert "v1a," not in receivers.at("/hooks")[0].headers["webhook-signature"]
    assert jwks(port, "workspace=acme") == []

    rotated = stack.cli_json("subscription", "rotate-secret", "acme", "crm")
    shown = stack.cli_json("subscription", "show", "acme", "crm")
    assert [one["publicKey"] for one in shown["publicKeys"]] == [made["publicKey"], rotated["publicKey"]]
    assert shown["publicKeys"][0]["kid"] == key["kid"]
    assert rotated["publicKey"] in stack.cli("subscription", "show", "acme", "crm").stdout
    [event] = stack.enqueue(1, first=1)
    assert stack.wait_ended([f"{event}.crm"]) == {"delivered": 1}
    second = receivers.at("/crm")[1]
    assert verifies(key, second.headers, second.body)
    for public in (made["publicKey"], rotated["publicKey"]):
        assert verify(second.headers, second.body, public)
    assert "whsk_" not in json.dumps(shown) + "".join(worker.log for worker in stack.workers)


def test_authorization_goes_to_its_receiver_alone(stack: Stack) -> None:
    """Not to the others of the workspace, nor to a callbackUrl, nor behind a redirect; and the secret is nowhere to be read."""
    receivers = Receivers(stack)
    stack.environment |= {
        "DISPATCHER_SECRET_KEYS": Fernet.generate_key().decode(),
        "SUBSCRIPTION_AUTH_SECRET": HUSH,
    }
    url = stack.add_workspace()
    stack.cli("subscription", "update", "acme", "default", "--auth", "basic", "--auth-user", "acme")
    add(stack, "plain")
    add(stack, "crm", "--auth", "bearer", "--auth-secret", "-", stdin=f"{HUSH}-crm=\n")
    elsewhere = f"{stack.listen()}/elsewhere"
    receivers.answers["/moved"] = web.Response(status=302, headers={"Location": elsewhere})
    add(stack, "moved", "--auth", "bearer")
    worker = stack.start_worker().wait_ready()
    [event] = stack.enqueue(1)
    assert stack.wait_ended([event, f"{event}.plain", f"{event}.crm"]) == {"delivered": 3}
    own = [*stack.enqueue(1, first=1, callbackUrl=elsewhere)]
    own += stack.enqueue(1, first=2, callbackUrl=url.replace("/hooks", "/same-server"))
    own += stack.enqueue(1, first=3, callbackUrl=url)
    assert stack.wait_ended(own) == {"delivered": 3}
    wait_until(lambda: receivers.at("/moved"), what="the redirect was asked for")
    assert stack.cli_json("subscription", "ping", "acme", "crm")["taken"] is True
    assert stack.cli_json("workspace", "ping", "acme", "--url", f"{elsewhere}/ping")["taken"] is True
    assert receivers.authorizations() == {
        "/hooks": {BASIC},
        "/plain": {None},
        "/crm": {f"Bearer {HUSH}-crm="},
        "/moved": {f"Bearer {HUSH}"},
        "/elsewhere": {None},
        "/same-server": {None},
        "/elsewhere/ping": {None},
    }
    assert len(receivers.at("/elsewhere")) == 1
    shown = [
        stack.cli("subscription", *words) for words in (("show", "acme", "crm", "--reveal"), ("list", "acme"))
    ]
    shown += [stack.cli("audit", "list", "--json"), stack.cli("event", "show", event, "--workspace", "acme")]
    said = worker.log + "".join(done.stdout + done.stderr for done in shown)
    stored = b"".join(stack.redis.hgetall("dispatcher:workspace:acme").values()).decode()
    for secret in (HUSH, BASIC.removeprefix("Basic ")):
        assert secret not in said
        assert secret not in stored
    assert stack.cli_json("subscription", "show", "acme", "default")["auth"] == "basic"


def test_the_trail_has_its_kind(stack: Stack) -> None:
    """Of Authorization the kind, and that a secret was changed; of keys their ids."""
    stack.environment["SUBSCRIPTION_AUTH_SECRET"] = HUSH
    stack.add_workspace()
    add(stack, "crm")
    change = ("subscription", "update", "acme", "crm")
    stack.cli(*change, "--auth", "bearer")
    stack.cli(*change, "--auth", "bearer")
    stack.cli(*change, "--auth", "bearer", "--auth-secret", "-", stdin="another")
    stack.cli(*change, "--auth", "none")
    said = stack.cli(*change, "--signature", "ed25519").stdout
    [key] = stack.cli_json("subscription", "show", "acme", "crm")["publicKeys"]
    assert said == f"subscription crm of workspace acme is changed\nits public key: {key['publicKey']}\n"
    trail = [(one["from"], one["to"]) for one in stack.cli_json("audit", "list")][:4]
    assert trail == [
        (
            {"signature": "hmac", "publicKeys": []},
            {"subscription": "crm", "signature": "ed25519", "publicKeys": [key["kid"]]},
        ),
        ({"auth": "bearer"}, {"subscription": "crm", "auth": "none"}),
        ({}, {"subscription": "crm", "authChanged": True}),
        ({"auth": "none"}, {"subscription": "crm", "auth": "bearer"}),
    ]


def test_a_secret_that_cannot_be_unsealed_stops_that_subscription_alone(stack: Stack) -> None:
    """The others get theirs; that one's callbacks wait, and the worker says why."""
    gone, kept = (Fernet.generate_key().decode() for _ in range(2))
    receivers = Receivers(stack)
    stack.environment["DISPATCHER_SECRET_KEYS"] = kept
    stack.add_workspace()
    add(stack, "billing", "--auth", "bearer", "--auth-secret", "b")
    stack.environment["DISPATCHER_SECRET_KEYS"] = f"{gone},{kept}"
    add(stack, "crm", "--auth", "bearer", "--auth-secret", "c")
    stack.environment["DISPATCHER_SECRET_KEYS"] = kept
    worker = stack.start_worker().wait_ready()
    events = stack.enqueue(3)
    others = [one for event in events for one in (event, f"{event}.billing")]
    assert stack.wait_ended(others) == {"delivered": 6}
    why = (
        "workspace 'acme', subscription 'crm': no key in DISPATCHER_SECRET_KEYS opens the workspace's secrets"
    )
    wait_until(lambda: why in worker.log, what="the worker says why")
    assert receivers.at("/crm") == []
    assert {stack.state(f"{event}.crm") for event in events} <= {"pending", "sending", "retrying"}
    assert stack.cli_json("subscription", "show", "acme", "crm")["problem"]
    assert stack.cli_json("subscription", "show", "acme", "billing")["problem"] is None
    assert receivers.authorizations() == {"/hooks": {None}, "/billing": {"Bearer b"}}


def test_a_secret_typed_on_a_terminal(stack: Stack) -> None:
    """It is asked for, and not shown while it is typed."""
    stack.add_workspace()
    options = ("--auth", "basic", "--auth-user", "acme")
    terminal = Terminal(stack, "subscription", "update", "acme", "default", *options)
    wait_until(lambda: "Password:" in terminal.text, what="it is asked for")
    terminal.type(f"{HUSH}\n")
    assert terminal.wait() == 0
    assert HUSH not in terminal.text
    assert HUSH.encode() in stack.redis.hget("dispatcher:workspace:acme", "auth")


TYPING_ERRORS = {
    "--auth digest": "auth is one of none, basic, bearer, oauth2, not 'digest'",
    "--auth basic": "--auth basic needs --auth-user",
    "--auth basic --auth-user a:b --auth-secret hush": "without a colon",
    "--auth bearer": "--auth bearer needs its secret: set SUBSCRIPTION_AUTH_SECRET, or --auth-secret -",
    "--auth bearer --auth-secret hu=sh": "= at its end alone",
    "--auth bearer --auth-user a --auth-secret hush": "goes with auth basic and oauth2 alone",
    "--auth-user a": "--auth-user and --auth-secret go with --auth",
    "--auth-secret hush": "--auth-user and --auth-secret go with --auth",
    "--auth bearer --auth-secret hush --header Authorization:x": "exclude each other",
    "--signature rsa": "signature is one of hmac, ed25519, not 'rsa'",
    "": "--signature, --auth or --client-certificate",
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
        assert "hush" not in line.replace("hush-", "")
        assert "hu=sh" not in line
    assert stack.redis.hgetall("dispatcher:workspace:acme") == before
