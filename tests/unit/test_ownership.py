"""Which worker should lead which partition, and what a worker does about it."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from hashlib import blake2s

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.rules.ownership import ALIVE_MS, Candidate, Decision, Member, alive, assign

NAMES = [f"w{n}" for n in range(12)]
NONE = frozenset[int]()


def rank(name: str, partition: int) -> int:
    """How high a worker ranks for a partition, computed one by one."""
    digest = blake2s(f"{partition // 4} {name}".encode()).digest()
    start = 8 * (partition % 4)
    return int.from_bytes(digest[start : start + 8], "little")


def led(leaders: Mapping[int, str], members: Collection[Member]) -> list[Member]:
    """The members, when each leads what it should."""
    return [
        replace(one, owns=frozenset(partition for partition, name in leaders.items() if name == one.name))
        for one in members
    ]


def moves(before: Mapping[int, str], after: Mapping[int, str]) -> int:
    return sum(before[partition] != after[partition] for partition in before)


partition_sets = st.frozensets(st.integers(0, 30))


@st.composite
def worlds(draw: st.DrawFn, *, limited: bool = True) -> tuple[range, list[Member]]:
    """Partitions and heartbeats with anything in them, and more than there is."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    cannot = partition_sets if limited else st.just(NONE)
    members = [Member(name, draw(partition_sets), draw(cannot)) for name in names]
    return range(draw(st.integers(1, 30))), members


@st.composite
def balanced(draw: st.DrawFn) -> tuple[range, list[Member], Mapping[int, str]]:
    """Workers that lead even shares, of any partitions."""
    partitions, workers = range(draw(st.integers(1, 60))), draw(st.integers(1, 11))
    order = draw(st.randoms(use_true_random=False)).sample(partitions, len(partitions))
    leaders = {partition: NAMES[n % workers] for n, partition in enumerate(order)}
    return partitions, led(leaders, [Member(name) for name in NAMES[:workers]]), leaders


def test_no_member() -> None:
    """Without a member nobody leads anything."""
    assert {} == assign(range(4), [])


def test_one_member() -> None:
    """A lone worker leads everything."""
    assert dict.fromkeys(range(4), "a") == assign(range(4), [Member("a")])


def test_shares_are_even() -> None:
    """Ten partitions of three workers: four, three and three."""
    leaders = assign(range(10), [Member("a"), Member("b"), Member("c")])
    assert [3, 3, 4] == sorted(Counter(leaders.values()).values())


def test_what_is_led_stays() -> None:
    """A worker keeps what it leads, whatever the ranks."""
    members = [Member("a", frozenset({0, 1})), Member("b", frozenset({2, 3}))]
    assert {0: "a", 1: "a", 2: "b", 3: "b"} == assign(range(4), members)


def test_a_worker_releases_what_it_ranks_lowest_for() -> None:
    """Of what a worker has too much, it loses what it ranks lowest for."""
    leaders = assign(range(10), [Member("a", frozenset(range(10))), Member("b")])
    by_rank = sorted(range(10), key=lambda partition: rank("a", partition))
    assert dict.fromkeys(by_rank[:5], "b") | dict.fromkeys(by_rank[5:], "a") == leaders


def test_the_highest_ranked_gets_what_nobody_leads() -> None:
    """A partition without a leader goes to the worker that ranks highest for it, of those that have room."""
    assert max(NAMES, key=lambda one: rank(one, 0)) == assign([0], [Member(name) for name in NAMES])[0]
    room, expected = Counter(dict.fromkeys(NAMES, 2)), {}
    for partition in range(24):
        expected[partition] = max(+room, key=lambda one: rank(one, partition))
        room[expected[partition]] -= 1
    assert expected == assign(range(24), [Member(name) for name in NAMES])


def test_two_that_lead_the_same() -> None:
    """Of two that say they lead a partition, the one that ranks higher keeps it."""
    for partition in range(20):
        other = partition + 1
        members = [Member("a", frozenset({partition})), Member("b", frozenset({partition}))]
        leaders = assign([partition, other], members)
        assert max("ab", key=lambda one: rank(one, partition)) == leaders[partition]


def test_a_partition_that_only_one_reaches() -> None:
    """All that only one worker reaches is that worker's, even if it then has more than its share."""
    limited = [Member(name, cannot=frozenset(range(8))) for name in "bc"]
    leaders = assign(range(10), [Member("a"), *limited])
    assert {"a": 8, "b": 1, "c": 1} == Counter(leaders.values())
    assert {"a"} == {leaders[partition] for partition in range(8)}


def test_a_worker_that_cannot_reach_all_has_too_many() -> None:
    """Where some worker cannot reach all, too, a worker that has too many loses what it ranks lowest for."""
    members = [Member("a", frozenset(range(9)), frozenset({9})), Member("b", frozenset({9}))]
    leaders = assign(range(10), members)
    by_rank = sorted(range(9), key=lambda partition: rank("a", partition))
    assert dict.fromkeys([9, *by_rank[:4]], "b") | dict.fromkeys(by_rank[4:], "a") == leaders


def test_a_partition_that_nobody_reaches() -> None:
    """A partition that nobody reaches stays with the worker that leads it."""
    down = frozenset({0, 1, 2})
    members = [Member("a", frozenset({0, 1}), down), Member("b", frozenset({2, 3}), down)]
    assert {0: "a", 1: "a", 2: "b", 3: "b"} == assign(range(4), members)


@given(worlds())
def test_everything_is_led_by_a_worker_that_can(world: tuple[range, list[Member]]) -> None:
    """Each partition goes to a worker that reaches it, if there is one; the order of heartbeats is nothing."""
    partitions, members = world
    leaders = assign(partitions, members)
    assert set(partitions) == set(leaders)
    assert leaders == assign(list(partitions)[::-1], members[::-1])
    for partition, name in leaders.items():
        able = {one.name for one in members if partition not in one.cannot}
        assert name in (able or {one.name for one in members})


@given(worlds())
def test_done_is_done(world: tuple[range, list[Member]]) -> None:
    """When each worker leads what it should, nothing moves."""
    partitions, members = world
    leaders = assign(partitions, members)
    assert leaders == assign(partitions, led(leaders, members))


@given(worlds())
def test_shares_are_as_even_as_can_be(world: tuple[range, list[Member]]) -> None:
    """No worker leads two partitions more than another that reaches one of them."""
    partitions, members = world
    leaders = assign(partitions, members)
    leading = led(leaders, members)
    unreachable = frozenset.intersection(*(one.cannot for one in leading))
    for most in leading:
        for fewest in leading:
            if len(most.owns) - len(fewest.owns) >= 2:
                assert most.owns <= fewest.cannot - unreachable


@given(worlds(limited=False))
def test_no_more_moves_than_needed(world: tuple[range, list[Member]]) -> None:
    """What is led by one worker alone moves only where that worker has too many."""
    partitions, members = world
    leaders = assign(partitions, members)
    claims = Counter(partition for one in members for partition in one.owns)
    for one in members:
        alone = [partition for partition in one.owns & set(partitions) if claims[partition] == 1]
        kept = [partition for partition in alone if leaders[partition] == one.name]
        share = Counter(leaders.values())[one.name]
        assert len(kept) == len(alone) or share == len(kept) or share <= -(-len(partitions) // len(members))
        assert len(alone) - len(kept) <= max(
            0, len(one.owns & set(partitions)) - len(partitions) // len(members)
        )


@given(balanced())
def test_moves_when_one_joins_or_leaves(world: tuple[range, list[Member], Mapping[int, str]]) -> None:
    """From even shares, at most P / W partitions move, rounded up; to the one that joins, or from the one that leaves."""
    partitions, members, before = world
    joined = assign(partitions, [*members, Member(NAMES[11])])
    assert moves(before, joined) <= -(-len(partitions) // (len(members) + 1))
    for gone in members if len(members) > 1 else []:
        left = assign(partitions, [one for one in members if one is not gone])
        assert moves(before, left) == len(gone.owns) <= -(-len(partitions) // len(members))


@given(balanced(), st.booleans(), st.data())
def test_half_done_changes_no_target(
    world: tuple[range, list[Member], Mapping[int, str]], joins: bool, data: st.DataObject
) -> None:
    """While partitions change hands, whoever has heard of whatever part of it decides the same."""
    partitions, members, before = world
    gone = None if joins or len(members) < 2 else data.draw(st.sampled_from(members))
    now = [*members, Member(NAMES[11])] if joins else [one for one in members if one is not gone]
    target = assign(partitions, now)
    owns = {one.name: set(one.owns) for one in members} | {one.name: set(one.owns) for one in now}
    for partition, name in before.items():
        if name != target[partition]:
            heard = data.draw(st.sampled_from(["nothing", "given up", "taken", "both"]))
            if heard in ("given up", "both"):
                owns[name].remove(partition)
            if heard in ("taken", "both"):
                owns[target[partition]].add(partition)
    assert target == assign(partitions, [replace(one, owns=frozenset(owns[one.name])) for one in now])


@settings(max_examples=5)
@given(st.integers(900, 1024), st.integers(2, 200))
def test_the_largest_installations(partitions: int, workers: int) -> None:
    """1,024 partitions and 200 workers are shared evenly too, and one more worker moves no more than its share."""
    members = [Member(f"celery@host-{n}") for n in range(workers)]
    before = assign(range(partitions), members)
    shares = Counter(before.values()).values()
    assert max(shares) - min(shares) <= 1
    after = assign(range(partitions), [*led(before, members), Member("new")])
    assert moves(before, after) <= -(-partitions // (workers + 1))


def test_the_same_again() -> None:
    """Equal heartbeats are not computed again; the result cannot be changed."""
    first = assign(range(8), [Member("a"), Member("b", frozenset({1}))])
    assert first is assign(range(8), [Member("b", frozenset({1})), Member("a")])
    with pytest.raises(TypeError):
        first[0] = "c"  # type: ignore[index]


def test_alive() -> None:
    """A worker has died when its last heartbeat is four seconds old; one from the future is alive."""
    assert {"new", "ahead"} == alive({"new": 1, "old": 0, "ahead": 9000}, ALIVE_MS)


def test_a_candidate_takes_at_once() -> None:
    """A worker tries to take what it should lead, and nothing else."""
    assert Decision(NONE, frozenset(range(4))) == Candidate(range(4), "a").decide([Member("a")])
    other = Member("b", frozenset({2, 3}))
    assert Decision(NONE, frozenset({1})) == Candidate(range(4), "a").decide(
        [Member("a", frozenset({0})), other]
    )


def test_a_candidate_gives_up_after_three_decisions() -> None:
    """A worker gives up what others should lead when three decisions in a row say so; one that does not starts anew."""
    candidate, everything = Candidate(range(4), "a"), Member("a", frozenset(range(4)))
    alone, joined = [everything], [everything, Member("b")]
    given_up = [
        len(candidate.decide(seen).give_up) for seen in (joined, joined, alone, joined, joined, joined)
    ]
    assert [0, 0, 0, 0, 0, 2] == given_up


def test_a_candidate_takes_what_nobody_leads() -> None:
    """A worker tries to take what nobody has led for three decisions in a row, even if another should lead it."""
    candidate, seen = Candidate(range(2), "a"), [Member("a", frozenset({0})), Member("b")]
    assert [0, 0, 1] == [len(candidate.decide(seen).take) for _ in range(3)]


def test_a_candidate_takes_what_its_leader_cannot_reach() -> None:
    """That some worker says it leads a partition counts for nothing if it cannot reach it."""
    seen = [Member("a", frozenset({0, 1})), Member("b"), Member("c", frozenset({2}), frozenset({2}))]
    candidate = Candidate(range(3), "a")
    taken = [len(candidate.decide(seen).take) for _ in range(3)]
    assert [0, 0, 1] == taken


def test_a_candidate_takes_nothing_that_it_cannot_reach() -> None:
    """What a worker cannot reach it does not try to take, however long nobody leads it; unless nobody reaches it."""
    own, one = Member("a", frozenset({0}), frozenset({1})), frozenset({1})
    candidate = Candidate(range(2), "a")
    assert [NONE] * 4 == [candidate.decide([own, Member("b")]).take for _ in range(4)]
    assert one == candidate.decide([own]).take
