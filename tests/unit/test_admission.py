"""Which endpoint's turn begins next, and how many begin at once."""

from dispatcher.rules.outcomes import EndpointHealth
from dispatcher.store.replies import Hint
from dispatcher.worker.admission import AT_ONCE, OF_ONE, SUSPECTS, Admission
from dispatcher.worker.slots import Slots


def begun(admission: Admission) -> list[str]:
    """Admits turns until there is no more room; returns what each counts under: its workspace, or SUSPECTS."""
    quotas = []
    while admitted := admission.next():
        quotas.append(admitted[1])
    return quotas


def add(admission: Admission, workspace: str, count: int) -> None:
    for number in range(count):
        admission.add(Hint(f"{workspace}{number}", workspace))


def test_one_workspace_begins_few_at_once() -> None:
    """One workspace begins few turns at once, however many of its endpoints wait, even if no other waits."""
    admission = Admission(Slots(1000))
    add(admission, "hog", 100)
    assert ["hog"] * OF_ONE == begun(admission)
    add(admission, "quiet", 1)
    assert ["quiet"] == begun(admission)
    admission.begun("hog")
    assert ["hog"] == begun(admission)


def test_many_workspaces_begin_many_at_once() -> None:
    """Many workspaces each begin turns of their own, up to a limit in total."""
    admission = Admission(Slots(1000))
    for number in range(100):
        add(admission, f"w{number}-", 1)
    assert AT_ONCE == len(begun(admission))
    assert 100 - AT_ONCE == len(admission)


def test_suspects_are_few_together() -> None:
    """All suspects together begin few turns at once, and others begin theirs at the same time."""
    slots = Slots(1000)
    admission = Admission(slots)
    for number in range(50):
        health = EndpointHealth.DOWN if number % 2 else EndpointHealth.UP
        slots.learn(f"bad{number}-0", f"bad{number}-", health, 9000)
        add(admission, f"bad{number}-", 5)
    add(admission, "quiet", 1)
    assert ["quiet", *[SUSPECTS] * OF_ONE] == begun(admission)
    slots.learn("bad0-0", "bad0-", EndpointHealth.UP, 5)
    add(admission, "bad0-", 1)
    assert ["bad0-"] == begun(admission), "one good attempt, and it is among the others"


def test_no_slot_no_turn() -> None:
    """While no slot is free no turn begins, and no endpoint is forgotten."""
    slots = Slots(4)
    admission = Admission(slots)
    add(admission, "w", 3)
    slots.close()
    assert ([], 3) == (begun(admission), len(admission))
    assert 3 == len(admission.take_all())


def test_suspects_have_their_turn_where_slots_lack() -> None:
    """However many others wait for the few slots, some turns go to suspects, which may have recovered."""
    slots = Slots(8)
    admission = Admission(slots)
    slots.learn("x0", "x", EndpointHealth.DOWN, 5)
    add(admission, "x", 1)
    served = []
    for number in range(20):
        add(admission, f"w{number}-", 3)
        admitted = admission.next()
        assert admitted
        served.append(admitted[1])
        admission.begun(admitted[1])
    assert SUSPECTS in served


def test_who_waits_wants_slots() -> None:
    """A workspace wants slots from the moment it waits: others leave it some, even if it never had one."""
    slots = Slots(8)
    slots.learn("busy", "busy", EndpointHealth.UP, 5)
    assert 8 == slots.take("busy", "busy", 8)
    admission = Admission(slots)
    admission.add(Hint("new", "new"))
    slots.give_back("busy", "busy", 1)
    assert 0 == slots.take("busy", "busy", 1)
    assert (Hint("new", "new"), "new") == admission.next()
    assert not slots.somebody_waits


def test_endpoints_that_may_not_be_served_hide_no_other() -> None:
    """If only a healthy endpoint may have a slot, it is found behind any number of others of its workspace."""
    slots = Slots(8)
    slots.take("down", "w", 8)
    slots.learn("healthy", "w", EndpointHealth.UP, 5)
    admission = Admission(slots)
    add(admission, "w", 20)
    admission.add(Hint("healthy", "w"))
    found = [admission.next() for _ in range(6)]
    assert (Hint("healthy", "w"), "w") in found
