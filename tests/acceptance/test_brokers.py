"""Brokers other than Redis: hints are only hints, so callbacks go on whatever becomes of them."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.settings import Settings
from tasks.actions.check_broker import look_at_broker
from tests.acceptance.rabbitmq import PROGRAM, RabbitMq
from tests.acceptance.stack import Stack, free_port, wait_until
from tests.http.test_transport import Certificates

COUNT = 50


needs_rabbitmq = pytest.mark.skipif(
    not PROGRAM.exists(), reason="needs RabbitMQ (Debian, Ubuntu: apt-get install rabbitmq-server)"
)


@pytest.fixture
def rabbitmq(tmp_path: Path) -> Iterator[RabbitMq]:
    """A real RabbitMQ."""
    with RabbitMq(tmp_path / "rabbitmq") as server:
        yield server


@needs_rabbitmq
@pytest.mark.parametrize("partitions", ["1", "16"])
def test_rabbitmq(stack: Stack, rabbitmq: RabbitMq, partitions: str) -> None:
    """Hints go through a RabbitMQ; while it is killed callbacks go on without, and with it again when it is back.

    Nobody sees its password.
    """
    stack.environment |= {"DISPATCHER_BROKER_URL": rabbitmq.url, "DISPATCHER_PARTITIONS": partitions}
    stack.add_workspace()
    workers = [stack.start_worker() for _ in range(2)]
    for worker in workers:
        worker.wait_ready()

    def deliver(first: int) -> None:
        assert {"delivered": COUNT} == stack.wait_ended(stack.enqueue(COUNT, first=first))

    def works() -> bool:
        """Whether a worker takes a hint that is published now."""
        return stack.cli("check", "--live").returncode == 0

    deliver(0)
    checked = stack.cli("check")
    assert "the broker is reachable" in checked.stdout
    assert works()
    rabbitmq.kill()
    deliver(COUNT)
    assert not works()
    rabbitmq.start()
    wait_until(works, 60, "workers take hints again")
    deliver(2 * COUNT)
    assert [0, 0] == [worker.terminate() for worker in workers]
    assert "hush" not in checked.stdout + "".join(worker.log for worker in workers)


@needs_rabbitmq
@pytest.mark.parametrize("host", ["127.0.0.1", "other.test"])
def test_rabbitmq_by_tls(stack: Stack, tmp_path: Path, host: str) -> None:
    """Its certificate and the name in it are verified, by DISPATCHER_REDIS_CA_FILE."""
    certificates = Certificates(tmp_path)
    certificates.server(host)
    with RabbitMq(tmp_path / "rabbitmq", tmp_path / f"{host}-30-False.pem") as server:
        stack.environment["DISPATCHER_BROKER_URL"] = server.url
        assert "the certificate of amqps://127.0.0.1" in " ".join(stack.cli("check").stdout.split())
        stack.environment["DISPATCHER_REDIS_CA_FILE"] = str(tmp_path / "authority.pem")
        checked = stack.cli("check").stdout
        worker = stack.start_worker()
        wait_until(
            lambda: ("ready." if host == "127.0.0.1" else "CERTIFICATE_VERIFY_FAILED") in worker.log,
            what="the worker connects, or refuses to",
        )
        assert (0 if host == "127.0.0.1" else 3) == stack.cli("check", "--live").returncode
    if host == "127.0.0.1":
        assert "the broker is reachable" in checked
    else:
        assert "the certificate of amqps://127.0.0.1" in " ".join(checked.split())
        assert "not valid for" in " ".join(checked.split())


@pytest.mark.parametrize(
    "broker", ["memory://", "amqp://u:hush@127.0.0.1:{}//", "amqp://u:hush@127.0.0.1:{}//;amqp://h.invalid"]
)
def test_callbacks_go(stack: Stack, broker: str) -> None:
    """With kombu's broker in memory, and with a RabbitMQ that is away since the start, everything is delivered."""
    url = broker.format(free_port())
    stack.add_workspace()
    worker = stack.start_worker(DISPATCHER_BROKER_URL=url)
    event_ids = stack.enqueue(COUNT)
    assert {"delivered": COUNT} == stack.wait_ended(event_ids)
    if broker.startswith("amqp"):
        wait_until(
            lambda: "Cannot connect to amqp://u:**@127.0.0.1" in worker.log,
            what="Celery says that it is away",
        )
    assert 0 == worker.terminate()
    assert "hush" not in worker.log


def test_check_of_a_rabbitmq_that_is_away(stack: Stack) -> None:
    """`check` names it, without its password, and ends with 1; `check --live` with 3."""
    stack.environment["DISPATCHER_BROKER_URL"] = f"amqp://u:hush@127.0.0.1:{free_port()}//"
    done, live = stack.cli("check"), stack.cli("check", "--live")
    assert (1, 3) == (done.returncode, live.returncode)
    assert "the broker is not reachable: [Errno 111] Connection refused" in done.stdout
    assert live.stderr.startswith("error: Celery's broker is not reachable: ")
    assert (1, False) == (
        len(live.stderr.splitlines()),
        "hush" in done.stdout + done.stderr + live.stdout + live.stderr,
    )


def test_check_gives_up_a_silent_broker() -> None:
    """A broker that accepts connections and says nothing is named soon, not after as long as Celery waits for one."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        settings = Settings(
            _env_file=None,
            redis_url="redis://127.0.0.1",
            broker_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0",
        )
        looking = threads.submit(look_at_broker, settings)
        with listener.accept()[0] as connection:
            connection.settimeout(6)  # Celery waits for 10 s
            while connection.recv(4096):
                pass
        assert "the broker is not reachable: Timeout reading from socket" == looking.result(6)[0].detail
