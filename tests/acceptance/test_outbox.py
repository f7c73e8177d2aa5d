"""docs/outbox.md and the producers in examples/: what is committed is enqueued, and happens once, whoever dies."""

import itertools
import json
import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
import redis

from dispatcher import Dispatcher, EnqueueInterrupted, InvalidInput, Message, RedisUnavailable, StatusChange
from tasks.redis_server import RedisServer
from tests.acceptance.stack import Stack, free_port, running_stack, wait_until
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "outbox.md").read_text()
SQL, SAVE, RELAY = (block for _, block in re.findall(r"^```(sql|python)\n(.*?)^```", TEXT, re.M | re.S))
FOR_SQLITE = [
    (old, new)
    for old, new in re.findall(r"^\| `([^`]+)` \| `?([^`|]*?)`? ?\|$", TEXT, re.M)
    if old != "InvalidInput"
]
MESSAGES = "CREATE TABLE message (uuid VARCHAR(64) PRIMARY KEY, status VARCHAR(16))"
numbers = itertools.count()

StartRelay = Callable[..., "subprocess.Popen[bytes]"]
"""Starts a relay with the URL of a Redis; `stderr` is where it writes to."""


@pytest.fixture(scope="module")
def stack(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, a workspace and a worker, for all tests here."""
    with running_stack(tmp_path_factory.mktemp("outbox")) as stack:
        stack.add_workspace()
        stack.start_worker().wait_ready()
        yield stack


def change(uuid: str, status: str = "SENT") -> StatusChange:
    """A status change of a message, now."""
    message = Message(uuid=uuid, src="ACME", dest="+233200000001")
    fields: Any = {"workspace": "acme", "status": status, "timestamp": datetime.now(UTC), "message": message}
    return StatusChange(**fields)


# The page's code.


class Page:
    """The page's code and its tables, in a database."""

    def __init__(
        self, folder: Path, url: str, code: Callable[[str], str], connect: Callable[[], Any]
    ) -> None:
        self.url, self.connect = url, connect
        self.names: dict[str, Any] = {"__name__": "page"}
        self.file = folder / "relay.py"
        self.file.write_text(code(RELAY))
        exec(code(SAVE), self.names)
        exec(code(RELAY), self.names)
        self.db = connect()
        for statement in ("DROP TABLE IF EXISTS message", "DROP TABLE IF EXISTS outbox", MESSAGES, code(SQL)):
            self.db.execute(statement)
        self.db.commit()

    def save(self, *changes: StatusChange) -> list[str]:
        """Commits status changes as the page says, of messages that are made for them; their eventIds."""
        for one in changes:
            uuid = one.message.uuid
            self.db.execute(f"INSERT INTO message (uuid) VALUES ('{uuid}') ON CONFLICT DO NOTHING")
            self.db.commit()
            self.names["save"](self.db, one)
        return [one.event_id for one in changes]

    def write(self, *rows: str) -> None:
        """Writes rows that nothing has checked."""
        for row in rows:
            self.db.execute("INSERT INTO outbox (change) VALUES ('" + row + "')")
        self.db.commit()

    def relay(self, url: str) -> int:
        """Relays one batch, by another connection."""
        with closing(self.connect()) as db, Dispatcher.from_url(url) as dispatcher:
            return int(self.names["relay"](db, dispatcher))

    def left(self, condition: str = "problem IS NULL") -> int:
        """How many rows the outbox has, that are not set aside."""
        with closing(self.connect()) as db:
            return int(db.execute(f"SELECT count(*) FROM outbox WHERE {condition}").fetchone()[0])

    def start_relay(self, redis_url: str, stderr: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        """The page's relay as a process."""
        environment = {"DATABASE_URL": self.url, "DISPATCHER_REDIS_URL": redis_url}
        return start([sys.executable, str(self.file)], ROOT, environment, stderr)


def sqlite(code: str) -> str:
    """The page's code with what its table says is different on SQLite."""
    for old, new in FOR_SQLITE:
        code = code.replace(old, new)
    return code


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server, where this machine has one and its client."""
    pytest.importorskip("psycopg", reason="no psycopg here")
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ["PATH"].split(os.pathsep))]
    programs = next((one for one in found if (one / "initdb").exists() and (one / "postgres").exists()), None)
    if programs is None:
        pytest.skip("no PostgreSQL server here (initdb, postgres)")
    user = None if os.getuid() else next((u for u in ("postgres", "nobody") if known(u)), None)
    folder = tempfile.mkdtemp(prefix="outbox-", dir="/tmp")
    if user:  # PostgreSQL refuses to run as root
        shutil.chown(folder, user)
    run: dict[str, Any] = {
        "cwd": folder,
        "user": user,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.STDOUT,
    }
    if user:
        run["extra_groups"] = []
    options = ["-D", f"{folder}/data", "-U", "outbox", "-A", "trust", "--no-sync"]
    subprocess.run([programs / "initdb", *options], check=True, **run)
    command = [programs / "postgres", "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses=", "-F"]
    server = subprocess.Popen(command, **run)
    try:
        wait_until(lambda: subprocess.run([programs / "pg_isready", "-q", "-h", folder]).returncode == 0)
        yield f"host={folder} user=outbox dbname=postgres"
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def known(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


@pytest.fixture(params=["sqlite", "postgresql"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The page's code in a new database of each kind."""
    if request.param == "sqlite":
        url = str(tmp_path / "backend.db")
        made = Page(tmp_path, url, sqlite, lambda: on_sqlite(url))
    else:
        made = on_postgresql(request, tmp_path)
    with closing(made.db):
        yield made


def on_sqlite(file: str) -> sqlite3.Connection:
    db = sqlite3.connect(file)
    db.execute("PRAGMA synchronous = OFF")  # no test pulls the plug
    return db


def on_postgresql(request: pytest.FixtureRequest, folder: Path) -> Page:
    url = request.getfixturevalue("postgresql")
    import psycopg

    return Page(folder, url, str, lambda: psycopg.connect(url, autocommit=True))


def queued(url: str) -> list[str]:
    """The eventIds on the queue, in its order."""
    with redis.Redis.from_url(url) as client:
        return [json.loads(fields[b"event"])["eventId"] for _, fields in client.xrange("dispatcher:events")]


def test_the_table_of_differences_is_read() -> None:
    """What the page says is different on SQLite is found in its code."""
    assert 6 == len(FOR_SQLITE)
    assert [] == [old for old, _ in FOR_SQLITE if old not in SQL + SAVE + RELAY]


def test_what_is_committed_is_enqueued_in_order(page: Page, redis_url: str) -> None:
    """More status changes than one batch holds are on the queue in the order of their commits, as they were written."""
    event_ids = page.save(
        *(change(f"m{number}", status) for number in range(260) for status in ("SENT", "READ"))
    )
    assert [500, 20, 0] == [page.relay(redis_url) for _ in range(3)]
    assert event_ids == queued(redis_url)
    assert 0 == page.left()


def test_both_or_neither(page: Page) -> None:
    """Where the outbox cannot be written to, the message keeps its status."""
    page.save(change("m1", "SENT"))
    page.db.execute("ALTER TABLE outbox RENAME TO elsewhere")
    page.db.commit()
    with pytest.raises(Exception, match="outbox"):
        page.save(change("m1", "DELIVERED"))
    assert ("SENT",) == tuple(page.db.execute("SELECT status FROM message").fetchone())


def test_a_bad_row_holds_nothing_up(page: Page, redis_url: str) -> None:
    """Rows that are no status change are set aside with the reason; what is before and behind them is enqueued."""
    expected = page.save(change("m1"))
    page.write("no JSON", "{}", change("m2").to_json().decode().replace("SENT", "NO SUCH"))
    expected += page.save(change("m3"))
    page.write(long_row())
    expected += page.save(change("m4"))
    assert [7, 0] == [page.relay(redis_url) for _ in range(2)]
    assert expected == queued(redis_url)
    assert [0, 4] == [page.left(), page.left("problem IS NOT NULL")]


def long_row() -> str:
    """A status change that is short enough to be read, and too long to be written again with its eventId."""
    fields = json.loads(change("m1").to_json())
    del fields["eventId"]
    fields["message"]["reference"] = {"filler": ""}
    fields["message"]["reference"]["filler"] = "x" * (65_536 - len(json.dumps(fields, separators=(",", ":"))))
    row = json.dumps(fields, separators=(",", ":"))
    with pytest.raises(InvalidInput):
        StatusChange.from_json(row.encode()).to_json()
    return row


def test_redis_away(page: Page, tmp_path: Path) -> None:
    """While Redis is away the rows stay."""
    page.save(change("m1"))
    with pytest.raises(RedisUnavailable):
        page.relay(f"unix://{tmp_path}/nobody.sock")
    assert 1 == page.left()


def test_a_broken_connection(page: Page, redis_server: RedisServer, redis_url: str) -> None:
    """Where the connection breaks in the middle, the rows stay and are enqueued again."""
    event_ids = page.save(change("m1"), change("m2"))
    with Proxy(redis_server.socket) as proxy, ThreadPoolExecutor(1) as thread:
        proxy.answers_until = b"XADD"
        relaying = thread.submit(page.relay, proxy.url)
        wait_until(lambda: queued(redis_url) == event_ids, what="the queue has them")
        proxy.cut()
        with pytest.raises(EnqueueInterrupted):
            relaying.result()
    assert 2 == page.left()
    assert 2 == page.relay(redis_url)
    assert event_ids * 2 == queued(redis_url)


def test_a_relay_waits_for_redis(page: Page, tmp_path: Path) -> None:
    """A relay that is started while Redis is away says so, and goes on when it is there."""
    event_ids = page.save(change("m1"))
    relays_once_redis_is_there(page.start_relay, tmp_path, event_ids)


def test_a_relay_is_interrupted(page: Page, redis_url: str, tmp_path: Path) -> None:
    """Ctrl-C ends a relay without a traceback."""
    page.save(change("m1"))
    ends_at_an_interrupt(page.start_relay, redis_url, page.left, tmp_path)


def test_a_relay_without_the_url_of_redis(page: Page, tmp_path: Path) -> None:
    """A relay that is not told where Redis is says in one line what to set, and does not guess."""
    says_what_to_set(page.start_relay, tmp_path)


def test_a_killed_relay(page: Page, stack: Stack) -> None:
    """A relay that is killed between enqueuing and deleting enqueues again: each status change happens once."""
    event_ids = page.save(*(change(f"page-{next(numbers)}") for _ in range(50)))
    killed_between_enqueue_and_delete(stack, page.start_relay, page.left, event_ids)


@pytest.fixture
def page_on_postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The page's code in PostgreSQL only."""
    made = on_postgresql(request, tmp_path)
    with closing(made.db):
        yield made


def test_a_second_relay_takes_what_is_behind(page_on_postgresql: Page, redis_url: str) -> None:
    """With SKIP LOCKED a relay takes the rows behind those that another one has in hand."""
    page = page_on_postgresql
    first, second = page.save(change("m1"), change("m2"))
    with closing(page.connect()) as other, other.transaction():
        other.execute("SELECT id FROM outbox ORDER BY id LIMIT 1 FOR UPDATE")
        assert 1 == page.relay(redis_url)
    assert 1 == page.relay(redis_url)
    assert [second, first] == queued(redis_url)


def test_every_message_has_one_relay(page_on_postgresql: Page) -> None:
    """The page's condition divides messages among four relays."""
    [condition] = re.findall(r"`WHERE (hashtext\(message\) & 3) = 0`", TEXT)
    asked = f"SELECT DISTINCT {condition} FROM (SELECT 'm' || n AS message FROM generate_series(1, 999) n) m"
    assert {(0,), (1,), (2,), (3,)} == set(page_on_postgresql.db.execute(asked).fetchall())


def test_a_relay_in_reserve_keeps_the_order(page_on_postgresql: Page, redis_url: str) -> None:
    """Without SKIP LOCKED a relay waits for the other, and then takes all in order."""
    page = page_on_postgresql
    expected = page.save(change("m1"), change("m2"))
    exec(RELAY.replace(" SKIP LOCKED", ""), page.names)
    waiting = threading.Thread(target=page.relay, args=(redis_url,))
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with closing(page.connect()) as other, other.transaction():
        other.execute("SELECT id FROM outbox ORDER BY id LIMIT 1 FOR UPDATE")
        waiting.start()
        wait_until(lambda: page.db.execute(blocked).fetchone()[0] == 1)
        assert [] == queued(redis_url)
    waiting.join()
    assert expected == queued(redis_url)


# The applications in examples/.


@dataclass(frozen=True)
class Application:
    """What an example needs, what its outbox is called, and the arguments of Python that start it."""

    packages: list[str]
    table: str
    setup: str
    server: str
    relay: str


APPLICATIONS = {
    "fastapi_producer": Application(
        packages=["fastapi", "uvicorn", "sqlalchemy"],
        table="outbox",
        setup="database.py",
        server="-m uvicorn app:app --port",
        relay="relay.py",
    ),
    "django_producer": Application(
        packages=["django"],
        table="sms_outbox",
        setup="manage.py migrate --verbosity 0",
        server="manage.py runserver --noreload",
        relay="manage.py relay",
    ),
}


@dataclass(frozen=True)
class Database:
    """Where an application keeps its tables: what its environment says of it, and how tests look into it."""

    environment: dict[str, str]
    connect: Callable[[], Any]


class Producer:
    """An example application: its web server and its relay are processes."""

    def __init__(self, name: str, database: Database) -> None:
        self.folder, self.database, self.application = ROOT / "examples" / name, database, APPLICATIONS[name]
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        assert 0 == self._start(self.application.setup).wait(60)

    def start_server(self) -> "subprocess.Popen[bytes]":
        """The web server, once it answers."""
        process = self._start(f"{self.application.server} {self.port}")
        url = f"http://127.0.0.1:{self.port}/"
        wait_until(lambda: answers(url) or process.poll() is not None, what="the server answers")
        assert process.poll() is None
        return process

    def start_relay(self, redis_url: str, stderr: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        """The relay."""
        return self._start(self.application.relay, {"DISPATCHER_REDIS_URL": redis_url}, stderr)

    def _start(
        self, arguments: str, environment: Mapping[str, str] = {}, stderr: IO[bytes] | None = None
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, *arguments.split()]
        process = start(command, self.folder, {**self.database.environment, **environment}, stderr)
        self.processes.append(process)
        return process

    def post(self, path: str, document: object) -> tuple[int, Any]:
        """POSTs JSON: status and document of the answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(document).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, document_of(error.read())

    def send(self) -> str:
        """A new message; its uuid."""
        status, answer = self.post("/messages", {"workspace": "acme", "src": "ACME", "dest": "+233200000001"})
        assert 201 == status
        return str(answer["uuid"])

    def rows(self) -> list[tuple[str, str | None]]:
        """What is in the outbox."""
        with closing(self.database.connect()) as db:
            found = db.execute(f"SELECT change, problem FROM {self.application.table} ORDER BY id")
            return [tuple(row) for row in found.fetchall()]

    def left(self) -> int:
        """How many rows wait."""
        return sum(problem is None for _, problem in self.rows())

    def write(self, row: str) -> None:
        """Writes a row that nothing has checked."""
        with closing(self.database.connect()) as db:
            db.execute(f"INSERT INTO {self.application.table} (change) VALUES ('{row}')")
            db.commit()


def document_of(body: bytes) -> Any:
    """The JSON of a refusal; None where it is a page."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


ON_POSTGRESQL = """
from settings import *
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": %r, "USER": "outbox", "NAME": %r}}
"""


def a_file(folder: Path) -> Database:
    """SQLite, which the applications use if they are told nothing."""
    file = str(folder / "producer.db")
    return Database({"DATABASE_URL": f"sqlite:///{file}", "DATABASE_FILE": file}, lambda: on_sqlite(file))


def on_a_server(url: str, folder: Path) -> Database:
    """A new database of a PostgreSQL server, as the applications' READMEs say."""
    import psycopg

    host, name = url.split()[0].removeprefix("host="), f"producer{next(numbers)}"
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    (folder / "on_postgresql.py").write_text(ON_POSTGRESQL % (host, name))
    environment = {
        "DATABASE_URL": f"postgresql+psycopg://outbox@/{name}?host={host}",
        "DJANGO_SETTINGS_MODULE": "on_postgresql",
        "PYTHONPATH": f"{ROOT}:{folder}",
    }
    return Database(environment, lambda: psycopg.connect(f"host={host} user=outbox dbname={name}"))


@pytest.fixture(params=APPLICATIONS)
def producer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Producer]:
    """Each application, with a new database."""
    name, _, server = request.param.partition(" on ")
    for package in APPLICATIONS[name].packages:
        pytest.importorskip(package, reason=f"no {package} here")
    database = on_a_server(request.getfixturevalue(server), tmp_path) if server else a_file(tmp_path)
    producer = Producer(name, database)
    try:
        yield producer
    finally:
        for process in producer.processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "producer", [*APPLICATIONS, *(f"{name} on postgresql" for name in APPLICATIONS)], indirect=True
)
def test_from_a_request_to_the_customer(producer: Producer, stack: Stack) -> None:
    """What the application commits is a callback, in order; what it refuses leaves nothing behind."""
    producer.start_server()
    uuid = producer.send()
    assert 204 == producer.post(f"/messages/{uuid}/status", {"status": "DELIVERED"})[0]
    assert (
        404 == producer.post("/messages/00000000-0000-4000-8000-000000000000/status", {"status": "SENT"})[0]
    )
    assert 422 == producer.post(f"/messages/{uuid}/status", {"status": "NO SUCH"})[0]
    assert 422 == producer.post("/messages", {"workspace": "no such name", "src": "ACME", "dest": "+2332"})[0]
    status, refusal = producer.post("/messages", {"workspace": "acme"})
    assert (422, True) == (status, "required" in str(refusal))
    changes = [StatusChange.from_json(change.encode()) for change, _ in producer.rows()]
    assert [(uuid, "SUBMITTED"), (uuid, "DELIVERED")] == [(one.message.uuid, one.status) for one in changes]

    producer.start_relay(stack.server.url)
    stack.wait_ended([one.event_id for one in changes])
    events = [one.event_type for one in stack.received if one.message == uuid]
    assert ["MESSAGE_SUBMITTED", "MESSAGE_DELIVERED"] == events


def test_a_bad_row_of_an_application(producer: Producer, stack: Stack) -> None:
    """A row that is no status change is set aside with the reason, and what is behind it is enqueued."""
    producer.write("{}")
    good = change(f"behind-{next(numbers)}")
    producer.write(good.to_json().decode())
    producer.start_relay(stack.server.url)
    stack.wait_ended([good.event_id])
    wait_until(lambda: producer.left() == 0)
    [(row, problem)] = producer.rows()
    assert "{}" == row
    assert "workspace: is required" in str(problem)


def test_an_application_waits_for_redis(producer: Producer, tmp_path: Path) -> None:
    """The server takes messages while Redis is away; the relay says so, and goes on when it is there."""
    producer.start_server()
    producer.send()
    [(row, _)] = producer.rows()
    event_id = StatusChange.from_json(row.encode()).event_id
    relays_once_redis_is_there(producer.start_relay, tmp_path, [event_id])


def test_a_relay_of_an_application_is_interrupted(producer: Producer, redis_url: str, tmp_path: Path) -> None:
    """Ctrl-C ends a relay without a traceback."""
    producer.write(change("m1").to_json().decode())
    ends_at_an_interrupt(producer.start_relay, redis_url, producer.left, tmp_path)


def test_a_relay_of_an_application_without_the_url_of_redis(producer: Producer, tmp_path: Path) -> None:
    """A relay that is not told where Redis is says in one line what to set, and does not guess."""
    says_what_to_set(producer.start_relay, tmp_path)


def test_everything_of_an_application_is_killed(producer: Producer, stack: Stack) -> None:
    """A server killed after its commit, and a relay killed after it enqueued: each status change happens once."""
    server = producer.start_server()
    uuids = [producer.send() for _ in range(20)]
    server.kill()  # nothing was enqueued yet
    event_ids = [StatusChange.from_json(change.encode()).event_id for change, _ in producer.rows()]
    assert len(uuids) == len(event_ids)
    killed_between_enqueue_and_delete(stack, producer.start_relay, producer.left, event_ids)


def relays_once_redis_is_there(start_relay: StartRelay, folder: Path, event_ids: list[str]) -> None:
    """Starts a relay, and Redis once the relay has found it away."""
    server = RedisServer(folder)
    output = folder / "relay.txt"
    with output.open("wb") as file, killed(start_relay(server.url, stderr=file)):
        wait_until(lambda: "the outbox waits: Redis at" in output.read_text(), what="it says so")
        with server:
            wait_until(lambda: queued(server.url) == event_ids, what="they are enqueued")


def ends_at_an_interrupt(start_relay: StartRelay, url: str, left: Callable[[], int], folder: Path) -> None:
    """Interrupts a relay that has moved what there was."""
    output = folder / "relay.txt"
    with output.open("wb") as file, killed(start_relay(url, stderr=file)) as relay:
        wait_until(lambda: left() == 0, what="the relay has moved all")
        relay.send_signal(signal.SIGINT)
        assert 0 == relay.wait(30)
    assert "" == output.read_text()


def says_what_to_set(start_relay: StartRelay, folder: Path) -> None:
    """Starts a relay with an empty URL of Redis."""
    output = folder / "relay.txt"
    with output.open("wb") as file, killed(start_relay("", stderr=file)) as relay:
        assert 1 == relay.wait(30)
    assert (1, True) == (len(output.read_text().splitlines()), "DISPATCHER_REDIS_URL" in output.read_text())


def killed_between_enqueue_and_delete(
    stack: Stack,
    start_relay: StartRelay,
    left: Callable[[], int],
    event_ids: list[str],
) -> None:
    """Kills a relay that has enqueued and not heard of it, starts another, and looks whether each happened once."""
    with Proxy(stack.server.socket) as proxy:
        proxy.answers_until = b"XADD"
        with killed(start_relay(proxy.url)) as relay:
            wait_until(lambda: all(map(stack.state, event_ids)), what="accepted")
            assert relay.poll() is None
    assert len(event_ids) == left()
    before = duplicates(stack)
    with killed(start_relay(stack.server.url)):
        wait_until(lambda: left() == 0, what="the second relay has moved all")
    wait_until(lambda: stack.redis.xlen("dispatcher:events") == 0, what="all is taken in")
    assert before + len(event_ids) == duplicates(stack)  # all of them came twice
    assert {"delivered": len(event_ids)} == stack.wait_ended(event_ids)
    got = Counter(one.event_id for one in stack.received)
    assert {1} == {got[event_id] for event_id in event_ids}


def duplicates(stack: Stack) -> int:
    """How many status changes came that had been accepted before."""
    return int(stack.cli_json("stats")["windows"]["24 h"]["duplicates"])


def start(
    command: list[str], folder: Path, environment: Mapping[str, str], stderr: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a process of an example, with the package of this checkout."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    return subprocess.Popen(
        command, cwd=folder, env={**own, "PYTHONPATH": str(ROOT), **environment}, stderr=stderr
    )


@contextmanager
def killed(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is killed at the end."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
