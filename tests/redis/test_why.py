"""What the command line says of an attempt without an answer: from a socket to the terminal."""

import pytest

from dispatcher.rules.decide import health_of
from dispatcher.rules.outcomes import Failed
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Settlement, ToSettle
from tasks.commands.event import _print
from tests.http.raw_server import Behaviour, Connection, answers, closes, serving
from tests.http.test_sender import callback as claimed
from tests.http.test_sender import sender, workspace
from tests.world import World, callback

ENDPOINT = "acme https://a.example:443"


async def half_a_head(connection: Connection) -> None:
    """A status line, then the end."""
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("behaviour", "error", "why"),
    [
        (answers(b"RTSP/1.0 200 OK\r\n\r\n"), "protocol", "begins with b'RTSP/1.0', not with HTTP/1"),
        (answers(b"\x1b[2J\r\n\r\n"), "protocol", r"begins with b'\x1b[2J', not with HTTP/1"),
        (closes, "maybe_received", "the connection ended before the answer's head was whole"),
        (half_a_head, "maybe_received", "the connection ended before the answer's head was whole"),
    ],
    ids=["another protocol", "an escape", "closed", "half a head"],
)
def test_event_show_says_why_there_was_no_answer(
    world: World, capsys: pytest.CaptureFixture[str], behaviour: Behaviour, error: str, why: str
) -> None:
    """`protocol` and `maybe_received` stand with their reason in the ledger, in `event show` and in its JSON."""

    async def record() -> None:
        async with serving(behaviour) as server, sender() as ours:
            attempt = await ours.send(claimed(server.url), workspace(), world.now)
        one = Settlement("e1", claim, Failed(), attempt, health_of(attempt), 0, 0)
        await world.ledger.settle([ToSettle(endpoint_id(ENDPOINT), [one], 0)])

    world.accept(callback("e1"))
    claim = world.claim().callbacks[0].claim
    world.run(record())
    event = world.event("e1")
    assert event.error == error
    assert why in event.as_json()["lastAnswer"]
    _print(event, "nothing", 0)
    shown = capsys.readouterr().out
    assert why in " ".join(shown.split())
    assert shown.replace("\n", "").isprintable()
