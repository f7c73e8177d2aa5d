"""Endpoints that wait to be served: workspaces in turn."""

from dispatcher.store.replies import Hint
from dispatcher.worker.ready import Ready


def filled(**counts: int) -> Ready:
    """Adds that many endpoints of each workspace, one workspace after the other."""
    ready = Ready()
    for workspace, count in counts.items():
        for number in range(count):
            ready.add(Hint(f"{workspace}{number}", workspace))
    return ready


def taken(ready: Ready, count: int) -> list[str]:
    """Takes the next ones."""
    return [hint.endpoint for _ in range(count) if (hint := ready.take())]


def test_workspaces_have_their_turn() -> None:
    """However many endpoints a workspace has, it gets one for each of the others'."""
    assert ["a0", "b0", "a1", "b1", "a2", "a3"] == taken(filled(a=100, b=2), 6)


def test_who_had_nothing_is_next() -> None:
    """A workspace that had nothing waiting is served before those that had."""
    ready = filled(a=50, b=50)
    taken(ready, 5)
    ready.add(Hint("c0", "c"))
    assert ["c0"] == taken(ready, 1)


def test_one_waits_once() -> None:
    """An endpoint that is added again waits as before."""
    ready = filled(a=2)
    ready.add(Hint("a0", "a"))
    assert 2 == len(ready)
    assert ["a0", "a1"] == taken(ready, 5)
    assert 0 == len(ready)


def test_who_may_not_is_passed_over() -> None:
    """A workspace that may have no more now keeps its place, and the others are served."""
    ready = filled(a=3, b=3)
    served = [ready.take(lambda hint: hint.workspace == "b") for _ in range(4)]
    assert ["b0", "b1", "b2", None] == [hint and hint.endpoint for hint in served]
    assert ["a0", "a1", "a2"] == taken(ready, 5)


def test_a_healthy_one_behind_others_is_found() -> None:
    """If a workspace's first endpoint may not be served, a healthy one close behind it is."""
    hint = filled(a=5).take(lambda hint: hint.endpoint == "a3")
    assert hint == Hint("a3", "a")


def test_all_at_once() -> None:
    """`take_all`, which a stopping worker calls, also takes workspaces in turn."""
    assert ["a0", "b0", "a1"] == [hint.endpoint for hint in filled(a=2, b=1).take_all()]


def test_who_has_more_is_not_starved() -> None:
    """Workspaces that keep coming with one endpoint each do not keep one with several from its turn."""
    ready = filled(a=3)
    served: list[str] = []
    for _ in range(40):
        for one in range(5):
            ready.add(Hint(f"b{one}", f"b{one}"))
        served += taken(ready, 2)
    assert {"a0", "a1", "a2"} <= set(served)
