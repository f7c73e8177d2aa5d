"""Brokers other than Redis: hints are only hints, so callbacks go on whatever becomes of them."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.settings import Settings
from tasks.actions.check_broker import look_at_broker
from tests.acceptance.stack import Stack, free_port, wait_until

COUNT = 50


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
