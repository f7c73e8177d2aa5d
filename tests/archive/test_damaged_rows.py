"""A damaged entry does not go to an archive; a row that is damaged there hides no other one and holds nothing up."""

import msgspec
import pytest
from structlog.testing import capture_logs

from dispatcher.errors import InvalidInput
from dispatcher.store.archive.archived_callback import Kept
from dispatcher.store.archive.archived_message import whole
from dispatcher.store.archive.ends import archived
from dispatcher.store.archive.history import CallbacksAndArchive
from dispatcher.store.archive.which import Which
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from tests.archive.conftest import Run
from tests.archive.test_archives import callback
from tests.archive.test_messages import made

ENTRY = b"0123456789abcdef sms.delivered d 1800000000000 failed 3 ep1 m1 172800000 5001 to=a,b base=1\n1 12 500 http_500"


@pytest.mark.parametrize(
    ("was", "by"),
    [
        (b"to=a,b", b"to"),
        (b"base=1", b"base=x"),
        (b" d ", b" ? "),
        (b" failed ", b" lost "),
        (b" failed ", b" pending "),
        (b" 172800000 ", b" 9999999999999999 "),
        (b" 5001 ", b" - "),
        (b"\n1 12 500", b"\n1 x 500"),
    ],
)
def test_an_entry_that_cannot_be_read(was: bytes, by: bytes) -> None:
    """What no list could show is refused before it goes to an archive; the entry without that fault is not."""
    assert ENTRY == Kept("acme", "e1", ENTRY).archived().entry()
    with pytest.raises(InvalidInput, match="not an entry"):
        Kept("acme", "e1", ENTRY.replace(was, by)).archived()


@pytest.mark.parametrize("damage", [{"extra": "to"}, {"status": "?"}, {"records": "x"}])
def test_a_callback_that_an_earlier_version_put(redis_url: str, run: Run, damage: dict[str, str]) -> None:
    """It is logged and left out, and everything else is listed and found."""
    first, second, third = [msgspec.structs.replace(callback(n, failed=True), message="m1") for n in range(3)]
    run(run.archive.put([first, msgspec.structs.replace(second, **damage), third]))

    async def listed() -> list[str]:
        return [one.event_id async for _, one in archived(run.archive, Which("acme")) if one]

    async def found(history: CallbacksAndArchive) -> tuple[list[str], bool, bool]:
        of = [one.event_id for one in await history.of_message("acme", "m1")]
        return of, bool(await history.get("acme", "e1")), bool(await history.get("acme", "e2"))

    with capture_logs() as logs:
        assert ["e2", "e0"] == run(listed())
    assert [("archive.unreadable", "e1")] == [(one["event"], one["event_id"]) for one in logs]
    client = connect_async(redis_url)
    in_redis = Callbacks(client, Keys())
    assert (["e0", "e2"], False, True) == run(found(CallbacksAndArchive(in_redis, run.archive)))
    run(client.aclose())


@pytest.mark.parametrize("damage", [{"history": "x1"}, {"history": ""}, {"status": "?"}, {"names": "[1"}])
def test_a_message_that_is_damaged(run: Run, damage: dict[str, str]) -> None:
    """What is told of it takes its place, and the rest of the batch goes to the archive as well."""
    messages = run.archive.messages
    run(messages.put([msgspec.structs.replace(made(), **damage)]))
    run(messages.put([made(), made("m2")]))
    found = whole(run(messages.get("acme", ["m1", "m2"])))
    assert {"m1": made(), "m2": made("m2")} == found
