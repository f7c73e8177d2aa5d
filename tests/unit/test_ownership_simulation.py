"""The protocol by which workers share partitions, simulated: whatever happens, each partition is led, by one worker."""

import math
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.ownership_world import LEASE_MS, SECOND_MS, STEP_MS, Worker, World

MOST_WORKERS = 12
AGAIN_MS = 500

seeds = st.integers(0, 2**32)


def ms(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most // STEP_MS).map(lambda steps: steps * STEP_MS)


EVENTS = ("join", "term", "kill", "stall", "cut", "forget")
events = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, MOST_WORKERS - 1), ms(12_000), ms(5000)), max_size=25
)

STALLED_AND_CUT_OFF = [
    ("cut", 9, 11700, 3000),
    ("stall", 2, 8200, 300),
    ("cut", 7, 11600, 2000),
    ("stall", 8, 10500, 1500),
]
"""Fails if nobody but the worker that should lead a partition tries to take it."""
THREE_GONE_AT_ONCE = [
    ("term", 2, 2200, 300),
    ("term", 2, 10600, 2000),
    ("join", 2, 700, 5000),
    ("cut", 9, 11700, 3000),
    ("kill", 1, 7400, 900),
    ("stall", 11, 7200, 0),
    ("term", 5, 6200, 3000),
    ("kill", 0, 6600, 5000),
]
"""Fails if the heartbeat is written before partitions are given up."""


def happens(world: World, event: str, which: int, for_ms: int) -> None:
    """One event, to one of the workers."""
    workers = list(world.workers.values())
    worker = workers[which % len(workers)] if workers else None
    if event == "join" or worker is None:
        if len(workers) < MOST_WORKERS:
            world.join()
    elif event == "forget":
        world.forget(which)
    elif event == "term":
        world.term(worker, for_ms)
    elif event == "kill":
        world.kill(worker)
    elif event == "stall":
        world.stall(worker, for_ms)
    else:
        world.cut(worker, which, for_ms)


def quiet(partitions: int, workers: int, seed: int) -> World:
    """Workers that lead their shares, at some moment of a second."""
    world = World(partitions, seed=seed)
    for _ in range(workers):
        world.join()
    world.settle()
    world.run(seed % 10 * STEP_MS)
    world.moved = world.longest_gap_ms = 0
    return world


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 64), st.integers(1, 4), st.integers(1, MOST_WORKERS), events, seeds)
@example(20, 2, 5, STALLED_AND_CUT_OFF, 3)
@example(20, 2, 5, THREE_GONE_AT_ONCE, 3)
@example(
    1000,
    3,
    MOST_WORKERS,
    [(EVENTS[n * 7 % 6], n * 5 % MOST_WORKERS, n * 700 % 12_000, n * 1300 % 5000) for n in range(20)],
    1,
)
def test_whatever_happens(
    partitions: int, servers: int, workers: int, happening: list[tuple[str, int, int, int]], seed: int
) -> None:
    """No partition is without a lease for longer than 6 s while a worker could lead it, and ten seconds later shares are even."""
    world = World(partitions, seed=seed, servers=servers)
    for _ in range(workers):
        world.join()
    for event, which, for_ms, pause_ms in happening:
        happens(world, event, which, for_ms)
        world.run(pause_ms)
    world.settle()


sizes = given(st.integers(1, 100), st.integers(2, MOST_WORKERS), st.integers(0, MOST_WORKERS - 1), seeds)


@settings(max_examples=25)
@given(st.integers(1, 100), st.integers(1, MOST_WORKERS - 1), seeds)
@example(1000, 11, 1)
def test_one_joins(partitions: int, workers: int, seed: int) -> None:
    """A worker that joins gets at most P / W partitions, each within half a second of when its leader gave it up."""
    world = quiet(partitions, workers, seed)
    world.join()
    world.settle()
    assert world.moved <= math.ceil(partitions / (workers + 1))
    assert world.longest_gap_ms <= AGAIN_MS


@settings(max_examples=25)
@sizes
@example(1000, 12, 3, 1)
def test_one_leaves(partitions: int, workers: int, which: int, seed: int) -> None:
    """Only what a worker led moves when it leaves on TERM, each partition within two seconds of when it gave it up."""
    world = quiet(partitions, workers, seed)
    world.term(list(world.workers.values())[which % workers])
    world.settle()
    assert workers - 1 == len(world.workers), "it ended by itself"
    assert world.moved <= math.ceil(partitions / workers)
    assert world.longest_gap_ms <= 2 * SECOND_MS


@settings(max_examples=25)
@sizes
@example(1000, 12, 3, 1)
def test_one_dies(partitions: int, workers: int, which: int, seed: int) -> None:
    """All that a worker led is led again six seconds after it died, and nothing else moves."""
    world = quiet(partitions, workers, seed)
    world.kill(list(world.workers.values())[which % workers])
    world.run(LEASE_MS + SECOND_MS)
    assert world.is_led_by_the_living()
    world.settle()
    assert world.moved <= math.ceil(partitions / workers)


@settings(max_examples=25)
@sizes
@example(10, 3, 0, 3)
def test_one_stalls(partitions: int, workers: int, which: int, seed: int) -> None:
    """A worker that comes back when its leases are gone is refused when it accepts, and gets as many partitions as before."""
    world = quiet(partitions, workers, seed)
    worker = list(world.workers.values())[which % workers]
    led = len(worker.leads)
    world.stall(worker, 7000)
    world.run(6900)
    assert worker.name not in world.holders()
    assert led == len(worker.leads), "it does not know yet"
    world.settle()
    assert led == world.refused


def stall(world: World, worker: Worker) -> None:
    world.stall(worker, 1400)


def cut(world: World, worker: Worker) -> None:
    world.cut(worker, 0, 1400)


@pytest.mark.parametrize("interrupt", [stall, cut])
def test_a_short_interruption(interrupt: Callable[[World, Worker], None]) -> None:
    """A worker that stalls or cannot reach Redis for a second or two keeps all that it leads."""
    for seed in range(10):
        world = quiet(40, 5, seed)
        interrupt(world, next(iter(world.workers.values())))
        world.settle()
        assert (0, 0) == (world.moved, world.longest_gap_ms)


def test_a_server_that_one_worker_cannot_reach() -> None:
    """Its partitions go to the others, which give it some of the other servers' for them; then nothing moves until it can again."""
    world = World(60, servers=3)
    for _ in range(4):
        world.join()
    world.settle()
    world.cut(cut_off := next(iter(world.workers.values())), 0, 30_000)
    world.run(15_000)
    assert {1, 2} == {partition % 3 for partition in cut_off.leads}
    assert [15] * 4 == [len(worker.leads) for worker in world.workers.values()]
    moved = world.moved
    world.run(10_000)
    assert moved == world.moved
    world.settle()


def test_a_worker_that_never_reached_a_registry() -> None:
    """Those who read that registry see it nevertheless: it gets its share of what it reaches."""
    world = World(60, servers=3)
    for _ in range(3):
        world.join()
    world.settle()
    world.cut(late := world.join(), 0, 30_000)
    world.run(10_000)
    assert {1, 2} == {partition % 3 for partition in late.leads}
    assert [15] * 4 == [len(worker.leads) for worker in world.workers.values()]


@pytest.mark.parametrize("registry", range(3))
def test_a_registry_that_comes_back_empty(registry: int) -> None:
    """Nobody takes others for dead: no worker tries to take what another leads, and nothing moves."""
    for seed in range(10):
        world = quiet(40, 5, seed)
        world.forget(registry)
        for _ in range(3 * SECOND_MS // STEP_MS):
            world.run(STEP_MS)
            assert not any(worker.take for worker in world.workers.values())
        world.settle()
        assert (0, 0) == (world.moved, world.longest_gap_ms)
