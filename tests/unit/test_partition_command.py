"""`dispatcher partition`, and what a producer's URL may be."""

import json
from collections.abc import Sequence

import pytest

from dispatcher import AsyncDispatcher, Dispatcher, InvalidInput
from dispatcher.rules.partitions import slot_of_key
from dispatcher.store.cluster_placement import ClusterPlacement
from dispatcher.store.placement import Command
from dispatcher.store.producer_servers import placement_of
from tasks import partition_docs
from tasks.commands.partition import partitions_of
from tests.command import command


def shown(*args: str, partitions: str = "16") -> tuple[int, str]:
    """The exit code of `dispatcher partition`, and what it prints; there is no Redis."""
    done = command("redis://127.0.0.1:1", "partition", *args, PARTITIONS=partitions)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.returncode, done.stdout


def test_a_workspace() -> None:
    """A workspace has one partition, or as many as its width, its home first; a message has one of these."""
    code, text = shown("acme", "--json")
    row = {"partition": 8, "tag": "12", "slot": 8373, "queue": "dispatcher:{12}:events"}
    assert (0, [row]) == (code, json.loads(text))
    code, text = shown("acme", "--width", "3", "--json")
    assert [8, 9, 10] == [one["partition"] for one in json.loads(text)]
    code, text = shown("acme", "--width", "4", "--message", partition_docs.MESSAGE, "--json")
    assert [9] == [one["partition"] for one in json.loads(text)]
    assert "dispatcher:{12}:events" in shown("acme")[1]


def test_what_the_document_shows() -> None:
    """The document shows what the command prints."""
    assert f"dispatcher partition acme\n{shown('acme')[1]}```" in partition_docs.DOCUMENT.read_text()


def test_all() -> None:
    """All partitions, also of an installation that has one: it has no tag, and so no slot."""
    code, text = shown("--all", "--json", partitions="1024")
    assert (0, list(range(1024))) == (code, [one["partition"] for one in json.loads(text)])
    row = {"partition": 0, "tag": "", "slot": None, "queue": "dispatcher:events"}
    assert [row] == json.loads(shown("--all", "--json", partitions="1")[1])


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("acme", "--all"),
        ("--all", "--message", "m"),
        ("--all", "--width", "2"),
        ("a b",),
        ("acme", "--width", "0"),
        ("acme", "--width", "65"),
        ("acme", "--message", "m 1"),
    ],
)
def test_wrong_usage(args: Sequence[str]) -> None:
    """What makes no sense ends with exit code 2."""
    assert 2 == shown(*args)[0]


def test_which_server() -> None:
    """With several plain servers each partition has one, without user and password."""
    rows = partitions_of("redis://u:hush@a:1/0, rediss://b/2", "dispatcher", 3)
    assert ["redis://a:1/0", "rediss://b/2", "redis://a:1/0"] == [row.server for row in rows]
    assert {""} == {row.server for row in partitions_of("redis://a", "dispatcher", 3)}
    assert {""} == {row.server for row in partitions_of("redis+cluster://a:1,b:2", "dispatcher", 3)}


def test_nodes_of_a_cluster() -> None:
    """Login and options of the URL are those of all nodes, also of ones that are found."""
    placement = placement_of("rediss+cluster://u:p%40x@a:1,[::1]:2/?socket_timeout=3", 16)
    assert isinstance(placement, ClusterPlacement)
    trips = placement.prepare()
    asked = [next(trips), trips.send([[OSError("away")]])]
    assert [
        ["rediss://u:p%40x@a:1/?socket_timeout=3"],
        ["rediss://u:p%40x@[::1]:2/?socket_timeout=3"],
    ] == [[one.node for one in requests] for requests in asked]
    slots = [[0, 99, [b"10.0.0.9", 7]], [100, 199, [b"fd00::1", 8], [b"x", 1]], [200, 16383, [b"", 2]]]
    with pytest.raises(StopIteration):
        trips.send([[slots]])
    holders = {placement.node(Command(0, f"x{{{n}}}", ())) for n in range(3000)}
    assert {
        "rediss://u:p%40x@10.0.0.9:7/?socket_timeout=3",
        "rediss://u:p%40x@[fd00::1]:8/?socket_timeout=3",
        "rediss://u:p%40x@[::1]:2/?socket_timeout=3",
    } == holders


def test_slots_of_keys() -> None:
    """A key's slot is that of its tag (the examples of the Redis Cluster specification, and keys without a tag)."""
    assert (
        slot_of_key("{user1000}.following") == slot_of_key("{user1000}.followers") == slot_of_key("user1000")
    )
    assert slot_of_key("foo{}{bar}") != slot_of_key("bar")
    assert slot_of_key("foo{{bar}}zap") == slot_of_key("{bar")
    assert slot_of_key("foo{bar}{zap}") == slot_of_key("bar")
    assert (12739 % 16384, 12182) == (slot_of_key("123456789"), slot_of_key("foo"))


WRONG = {
    "redis+cluster://": "names no host",
    "redis+cluster://,": "names no host",
    "redis+cluster://:hush/x@a:1": "is no URL",
    "redis+cluster://:hush@a:1/3": "names a database",
    "redis+cluster://:hush@a:1?db=3": "names a database",
    "redis+cluster://:hush@a:1?hush=3": "has an option that is not known",
    "redis+cluster://:hush@a:1:2": "is no URL|has a port",
    "redis+cluster://:hush@a:1 b:2": "is no URL|blank",
    "sentinel+cluster://:hush@a:1": "must start with",
    "redis://:hush@a http://:hush@b": "whose number 2 must start with",
    "redis://:hush@a,redis://:hush@b:0": "names port 0",
    "redis://:hush@a redis://hush@b": "no password",
}


@pytest.mark.parametrize("url", WRONG)
def test_wrong_urls(url: str) -> None:
    """An invalid URL is refused when the producer is made, and nothing of it is shown."""
    for kind in (Dispatcher, AsyncDispatcher):
        with pytest.raises(InvalidInput, match=WRONG[url]) as caught:
            kind.from_url(url, partitions=16)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://a redis://b", "redis+cluster://a:1"])
def test_several_servers_need_partitions(url: str) -> None:
    """One partition lies on one server."""
    with pytest.raises(
        InvalidInput, match="which need partitions: pass partitions=, or set DISPATCHER_PARTITIONS"
    ):
        Dispatcher.from_url(url)


@pytest.mark.parametrize("partitions", [0, -1, 1025, "16", 1.5, None, True])
def test_numbers_that_no_installation_has(partitions: object) -> None:
    """Anything but 1 to 1,024 is refused."""
    for kind in (Dispatcher, AsyncDispatcher):
        with pytest.raises(
            InvalidInput, match="give the workers' DISPATCHER_PARTITIONS, which is 1 to 1,024"
        ):
            kind.from_url("redis://a", partitions=partitions)  # type: ignore[arg-type]


@pytest.mark.parametrize("widths", [{"acme": 0}, {"acme": 65}, {"acme": "4"}, {"acme": True}, ["acme"]])
def test_wrong_widths(widths: object) -> None:
    """A width is 1 to 64."""
    with pytest.raises(InvalidInput, match="width"):
        Dispatcher.from_url("redis://a", partitions=16, widths=widths)  # type: ignore[arg-type]
