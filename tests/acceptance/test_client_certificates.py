"""Client certificates by real workers, receivers that ask for them, and the commands that an operator types."""

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from dispatcher.model import iso
from tests.acceptance.stack import CLI, Stack, free_port, wait_until
from tests.acceptance.test_metrics import scrape
from tests.client_certificates import SERVER, ClientAuthority, Pair
from tests.http.test_transport import Certificates


class Receiver:
    """An https server that asks for certificates; whom it saw, by path."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.seen: list[tuple[str, str]] = []
        seen = self.seen

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                assert isinstance(self.connection, ssl.SSLSocket)
                subject: Any = (self.connection.getpeercert() or {})["subject"]
                seen.append((self.path, subject[0][0][1]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Refused handshakes are what is tested."""

            def get_request(self) -> Any:
                sock, address = super().get_request()
                return tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self.server.server_port}"


@contextmanager
def receiving(tls: ssl.SSLContext) -> Iterator[Receiver]:
    """A receiver until the block ends."""
    receiver = Receiver(tls)
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


@pytest.fixture
def clients(tmp_path: Path) -> ClientAuthority:
    """The authority of clients."""
    return ClientAuthority(tmp_path)


@pytest.fixture
def receiver(stack: Stack, clients: ClientAuthority, tmp_path: Path) -> Iterator[Receiver]:
    """A receiver that the workers trust, and that asks them for certificates."""
    servers = Certificates(tmp_path)
    stack.environment |= {
        "DISPATCHER_CA_FILE": str(tmp_path / "authority.pem"),
        "DISPATCHER_SECRET_KEYS": Fernet.generate_key().decode(),
    }
    with receiving(clients.asking(servers.server("127.0.0.1"))) as found:
        yield found


def files(stack: Stack, pair: Pair, name: str = "client") -> tuple[str, ...]:
    """The options for a pair, in two files."""
    certificate, key = stack.folder / f"{name}.pem", stack.folder / f"{name}.key"
    certificate.write_text(pair.certificate)
    key.write_text(pair.key)
    return "--client-certificate", str(certificate), "--client-key", str(key)


def test_two_subscriptions_at_one_server(stack: Stack, clients: ClientAuthority, receiver: Receiver) -> None:
    """Each is known by its own certificate; it can be replaced and removed; the key is nowhere to be read."""
    stack.add_workspace(url=f"{receiver.url}/hooks")
    acme, crm = clients.issue("acme"), clients.issue("crm", rsa_bits=2048)
    changed = stack.cli("subscription", "update", "acme", "default", *files(stack, acme))
    assert (changed.returncode, changed.stdout) == (0, "subscription default of workspace acme is changed\n")
    both = stack.folder / "both.pem"
    both.write_text(crm.certificate + crm.key)
    url = ("--callback-url", f"{receiver.url}/crm")
    stack.cli_json("subscription", "add", "acme", "crm", *url, "--client-certificate", str(both))
    worker = stack.start_worker().wait_ready()
    events = stack.enqueue(5)
    assert stack.wait_ended([one for e in events for one in (e, f"{e}.crm")]) == {"delivered": 10}
    assert sorted(receiver.seen) == [("/crm", "crm")] * 5 + [("/hooks", "acme")] * 5
    assert stack.cli_json("subscription", "ping", "acme", "crm")["taken"] is True
    assert receiver.seen[-1] == ("/crm", "crm")

    newer = clients.issue("crm-2", days=30)
    stack.cli("subscription", "update", "acme", "crm", *files(stack, newer, "newer"))
    [event] = stack.enqueue(1, first=5)
    assert stack.wait_ended([f"{event}.crm"]) == {"delivered": 1}
    assert ("/crm", "crm-2") in receiver.seen
    shown = stack.cli("subscription", "show", "acme", "crm", "--reveal")
    assert "CN=crm-2, ends 20" in shown.stdout
    document = stack.cli_json("subscription", "show", "acme", "crm")["clientCertificate"]
    assert (document["subject"], len(document["fingerprint"])) == ("CN=crm-2", 64)
    trail = stack.cli_json("audit", "list")[0]
    assert trail["to"]["clientCertificate"] == document["fingerprint"]

    stack.cli("subscription", "update", "acme", "crm", "--client-certificate", "none")
    [event] = stack.enqueue(1, first=6)
    refused = {"tls_handshake", "maybe_received"}
    wait_until(
        lambda: {a["error"] for a in stack.event(f"{event}.crm")["attempts"]} & refused, what="it is refused"
    )
    said = worker.log + shown.stdout + stack.cli("audit", "list", "--json").stdout
    stored = b"".join(stack.redis.hgetall("dispatcher:workspace:acme").values()).decode()
    for pair in (acme, crm, newer):
        secret = pair.key.splitlines()[1]
        assert secret not in said + stored
    assert worker.terminate() == 0


def test_its_end_is_told(stack: Stack, clients: ClientAuthority, receiver: Receiver) -> None:
    """By `check` and the exporter, two weeks before; nothing is said of one that lasts."""
    stack.add_workspace(url=f"{receiver.url}/hooks")
    stack.cli("subscription", "update", "acme", "default", *files(stack, clients.issue(days=15)))
    [one] = [
        one for one in json.loads(stack.cli("check", "--json").stdout) if one["subject"] == "certificates"
    ]
    assert (one["verdict"], one["detail"]) == ("ok", "no client certificate ends within 14 days")
    stack.cli("subscription", "update", "acme", "default", *files(stack, clients.issue(days=13.9)))
    [one] = [
        one for one in json.loads(stack.cli("check", "--json").stdout) if one["subject"] == "certificates"
    ]
    assert one["verdict"] == "warning"
    ends = stack.cli_json("subscription", "show", "acme", "default")["clientCertificate"]["expiresAt"]
    assert one["detail"] == f"1 ended or end within 14 days: acme default (ends {ends})"
    assert "subscription update acme default --client-certificate FILE" in one["advice"]
    port = free_port()
    exporter = stack.start_worker(*CLI, "exporter", "--port", str(port))
    wait_until(lambda: "metrics at" in exporter.log, what="the exporter")
    name = "dispatcher_client_certificate_expiry_timestamp_seconds"
    assert iso(round(scrape(port)[f"{name} default acme"] * 1000)) == ends


def test_one_that_has_ended(stack: Stack, clients: ClientAuthority, receiver: Receiver) -> None:
    """Its callbacks fail as `auth`, with the reason; with a new one they go out."""
    stack.add_workspace(url=f"{receiver.url}/hooks")
    short = clients.issue(days=25 / 86_400)
    assert stack.cli("subscription", "update", "acme", "default", *files(stack, short)).returncode == 0
    stack.start_worker(DISPATCHER_MAX_ATTEMPTS="20", DISPATCHER_BREAKER_FAILURES="100").wait_ready()
    wait_until(lambda: stack.cli("subscription", "ping", "acme", "default").returncode == 1, 60, "it ends")
    [event] = stack.enqueue(1)
    wait_until(lambda: stack.event(event)["attempts"], what="an attempt")
    assert stack.event(event)["attempts"][-1]["error"] == "auth"
    assert (
        "our client certificate ended at 20"
        in stack.cli("event", "show", event, "--workspace", "acme").stdout
    )
    stack.cli("subscription", "update", "acme", "default", *files(stack, clients.issue("new"), "new"))
    assert stack.wait_ended([event]) == {"delivered": 1}
    assert {name for _, name in receiver.seen[-1:]} == {"new"}


def test_typing_errors(stack: Stack, clients: ClientAuthority) -> None:
    """Each gets one line and exit code 2, and changes nothing."""
    stack.add_workspace()
    good = clients.issue()
    certificate, key = files(stack, good)[1::2]
    wrong = {
        name: files(stack, pair, name)[1::2]
        for name, pair in {
            "other": Pair(good.certificate, clients.issue().key),
            "expired": clients.issue(days=-0.1),
            "server": clients.issue(usages=(SERVER,)),
            "locked": clients.issue(password="hush"),
            "short": clients.issue(rsa_bits=1024),
        }.items()
    }
    says = {
        ("--client-key", key): "--client-key goes with --client-certificate FILE",
        ("--client-certificate", "none", "--client-key", key): "--client-key goes with",
        ("--client-certificate", certificate): "no readable client key",
        ("--client-certificate", key): "no readable client certificate",
        ("--client-certificate", "gone.pem"): "--client-certificate gone.pem: No such file or directory",
        ("--client-certificate", certificate, "--client-key", "/"): "--client-key /: Is a directory",
        **{
            ("--client-certificate", a, "--client-key", b): text
            for (a, b), text in zip(
                wrong.values(),
                (
                    "does not fit",
                    "has expired",
                    "not for clients",
                    "with a password",
                    "OpenSSL does not accept",
                ),
                strict=True,
            )
        },
    }
    before = stack.redis.hgetall("dispatcher:workspace:acme")
    for words, text in says.items():
        done = stack.cli("subscription", "update", "acme", "default", *words)
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
        [line] = done.stderr.splitlines()
        assert text in line
    assert stack.redis.hgetall("dispatcher:workspace:acme") == before
    piped = ("--client-certificate", certificate, "--client-key", "-")
    assert stack.cli("subscription", "update", "acme", "default", *piped, stdin=good.key).returncode == 0
