"""Which endpoints a worker serves, which it leaves to others, and what happens to them when it stops."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.rules.decide import INTERNAL_ERROR_DELAY_MS
from dispatcher.rules.outcomes import Attempt, Delivered, Released
from dispatcher.share_of_core import BUSY
from dispatcher.store.arguments import Room
from dispatcher.store.replies import Hint
from dispatcher.worker import turns
from dispatcher.worker.intake import BATCH_BEHIND
from dispatcher.worker.load import Load
from dispatcher.worker.slots import SHARE
from dispatcher.worker.turn import FIRST_CLAIM
from dispatcher.worker.turns import CROWD, OF_ONE, RATION, Turns
from tests.fakes import NOW_MS, FakeWorker, claim, played, quiet, until

A, B, C = Hint("a", "acme"), Hint("b", "bolt"), Hint("c", "cobra")


class Scene(FakeWorker):
    """The turns of one worker, alone at first and with nothing to do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load = Load()
        self.turns = Turns([self.parts], self.hints, self.load)

    async def ended(self) -> None:
        """Waits until no turn runs, and checks that no slot is taken."""
        async with asyncio.timeout(10):
            await self.turns.ended()
        assert (0, 0) == (len(self.turns), self.slots.taken)


Story = Callable[[Scene], Coroutine[Any, Any, None]]


def play(story: Story, **kwargs: Any) -> None:
    """Runs a story and checks that no task failed."""

    async def run() -> None:
        await story(Scene(**kwargs))

    assert [] == played(run())


def test_a_hint_is_served() -> None:
    """A turn claims, POSTs and settles, and ends when nothing is left."""

    async def story(scene: Scene) -> None:
        scene.ledger.due["a"] = ["e1", "e2"]
        scene.turns.hint([A])
        assert 1 == len(scene.turns)
        await scene.ended()
        assert ["e1", "e2"] == sorted(scene.settler.event_ids)
        assert [] == scene.hints

    play(story)


@pytest.mark.parametrize(
    ("workers", "share_of_core", "slots", "here"),
    [
        (1, 0.0, 8, True),
        (1, 1.0, 8, True),
        (1, 0.0, 0, True),
        (2, 0.0, 8, True),
        (2, BUSY, 8, False),
        (2, 0.0, 0, False),
    ],
    ids=["alone", "alone and busy", "alone and full", "time for it", "busy", "full"],
)
def test_here_or_elsewhere(workers: int, share_of_core: float, slots: int, here: bool) -> None:
    """Hints go to other workers, if there are any, when this one has no time or no slots."""

    async def story(scene: Scene) -> None:
        scene.turns.workers, scene.load.share_of_core = workers, share_of_core
        scene.turns.hint([A])
        assert ([] if here else [A]) == scene.hints

    play(story, slots=slots)


def test_a_crowd_is_shared_with_others() -> None:
    """While many endpoints wait for a turn, hints go to other workers; what those hint is still served here."""

    async def story(scene: Scene) -> None:
        scene.ledger.gate.shut()
        scene.turns.workers = 2
        scene.turns.serve(Hint(f"a{n}", "acme") for n in range(CROWD + 4))
        assert scene.turns.are_crowded
        scene.turns.hint([B])
        assert [B] == scene.hints
        scene.turns.serve([C])
        scene.ledger.gate.open()
        await scene.ended()
        assert "c" in {endpoint for endpoint, _ in scene.ledger.claims}
        assert "b" not in {endpoint for endpoint, _ in scene.ledger.claims}

    play(story, slots=1000)


def test_one_turn_for_an_endpoint() -> None:
    """An endpoint that is hinted while it has a turn, or twice while it waits, has one turn, which claims once more."""

    async def story(scene: Scene) -> None:
        scene.ledger.gate.shut()
        scene.turns.serve([A, A])
        await until(lambda: scene.ledger.gate.waiting, "a claim")
        scene.turns.serve([A])
        assert 1 == len(scene.turns)
        scene.ledger.gate.open()
        await scene.ended()
        assert ["a", "a"] == [endpoint for endpoint, _ in scene.ledger.claims]

    play(story)


def test_hinted_while_its_last_result_is_recorded() -> None:
    """A turn that is about to end claims once more if its endpoint was hinted meanwhile."""

    async def story(scene: Scene) -> None:
        scene.ledger.due["a"] = ["e1"]
        scene.settler.gate.shut()
        scene.turns.hint([A])
        await until(lambda: scene.settler.gate.waiting, "a settle")
        scene.ledger.due["a"] = ["e2"]
        scene.turns.hint([A])
        assert 1 == len(scene.turns)
        scene.settler.gate.open()
        await scene.ended()
        assert ["e1", "e2"] == scene.settler.event_ids

    play(story)


def test_hinted_when_its_time_is_over() -> None:
    """A turn whose time is over claims no more; the endpoint queues again and gets another turn."""

    async def story(scene: Scene) -> None:
        scene.ledger.due["a"] = ["e1"]
        scene.settler.gate.shut()
        scene.turns.hint([A])
        await until(lambda: scene.settler.gate.waiting, "a settle")
        [turn] = scene.turns._turns.values()
        turn._until = 0.0
        scene.ledger.due["a"] = ["e2"]
        scene.turns.hint([A])
        scene.settler.gate.open()
        await until(lambda: len(scene.ledger.claims) == 2, "another turn")
        assert turn not in scene.turns._turns.values()
        await scene.ended()
        assert ["e1", "e2"] == scene.settler.event_ids

    play(story)


def test_what_accept_gives() -> None:
    """Callbacks that accept leases are sent without a claim; slots that were reserved for more are freed."""

    async def story(scene: Scene) -> None:
        room = scene.turns.reserve(5, ["acme"])
        assert (Room(5), 5) == (room, scene.slots.taken)
        scene.turns.serve_claims([("a", claim("e1", "e2"))], room.claims)
        assert 2 == scene.slots.taken
        await scene.ended()
        assert ([], ["e1", "e2"]) == (scene.ledger.claims, sorted(scene.sender.sent))

    play(story)


def give(scene: Scene, number: int = 1) -> None:
    """Accept leases e1 to this worker, with this claim number."""
    room = scene.turns.reserve(1, ["acme"])
    scene.turns.serve_claims([("a", claim("e1", number=number))], room.claims)


def numbers(scene: Scene) -> list[int]:
    """The claim numbers of what was settled."""
    return [one.claim for _, settlements, _ in scene.settler.asked for one in settlements]


@pytest.mark.parametrize("number", [1, 2])
def test_what_redis_gives_again_while_it_is_sent(number: int) -> None:
    """A callback is not sent while its POST is under way, whose result counts for the newer claim: Redis lost the first."""

    async def story(scene: Scene) -> None:
        scene.sender.gate.shut()
        give(scene)
        await until(lambda: scene.sender.gate.waiting, "its POST")
        with capture_logs() as logged:
            give(scene, number)
            await quiet()
        assert ["callback.claimed_again"] == [line["event"] for line in logged]
        assert 1 == scene.slots.taken
        scene.sender.gate.open()
        await scene.ended()
        assert (["e1"], [number]) == (scene.sender.sent, numbers(scene))

    play(story)


@pytest.mark.parametrize(("number", "sent"), [(1, 1), (2, 2)])
def test_what_redis_gives_again_while_it_is_recorded(number: int, sent: int) -> None:
    """A callback whose result is about to be recorded is sent only with another claim number: then it is recorded."""

    async def story(scene: Scene) -> None:
        scene.settler.gate.shut()
        give(scene)
        await until(lambda: scene.settler.gate.waiting, "its record")
        give(scene, number)
        await quiet()
        assert ["e1"] * sent == scene.sender.sent
        scene.settler.gate.open()
        await scene.ended()
        assert [1, 2][:sent] == numbers(scene)

    play(story)


@pytest.mark.parametrize("error", [None, RedisUnavailable("away")], ids=["recorded", "given up"])
def test_what_redis_gives_again_later(error: Exception | None) -> None:
    """What a turn has recorded, or could not record, it sends again."""

    async def story(scene: Scene) -> None:
        scene.settler.gate.shut()
        give(scene)
        await until(lambda: scene.settler.gate.waiting, "its record")
        [turn] = scene.turns._turns.values()
        scene.settler.error = error
        scene.settler.gate.open()
        await until(lambda: not turn._in_hand._claims, "an empty hand")
        give(scene)
        await scene.ended()
        assert ["e1", "e1"] == scene.sender.sent

    play(story)


def test_what_accept_gives_an_endpoint_that_has_a_turn() -> None:
    """A running turn also sends what accept leases, whether it is claiming, waiting for an answer or recording one."""

    async def story(scene: Scene) -> None:
        for gate in (scene.ledger.gate, scene.sender.gate, scene.settler.gate):
            gate.shut()
        scene.ledger.due["a"] = ["e1"]
        scene.turns.hint([A])
        for number, gate in enumerate((scene.ledger.gate, scene.sender.gate, scene.settler.gate)):
            await until(lambda gate=gate: gate.waiting, f"gate {number}")
            room = scene.turns.reserve(1, ["acme"])
            scene.turns.serve_claims([("a", claim(f"given{number}"))], room.claims)
            assert 1 == len(scene.turns)
            gate.open()
        await scene.ended()
        assert ["e1", "given0", "given1", "given2"] == sorted(scene.settler.event_ids)

    play(story)


def test_accept_that_failed() -> None:
    """Slots that were reserved for a failed accept are free for waiting endpoints."""

    async def story(scene: Scene) -> None:
        room = scene.turns.reserve(10, ["acme"])
        assert 3 == room.claims
        scene.turns.serve([B])
        await quiet()
        assert [] == scene.ledger.claims
        scene.turns.serve_claims([], room.claims)
        await until(lambda: scene.ledger.claims == [("b", 3)], "its claim")
        await scene.ended()

    play(story, slots=3)


def test_nothing_is_reserved_where_there_is_no_time() -> None:
    """A busy worker reserves no slots if there are other workers; a stopping one never does."""

    async def story(scene: Scene) -> None:
        scene.load.share_of_core = 1.0
        assert Room(4) == scene.turns.reserve(4, ["acme"])
        scene.turns.serve_claims([], 4)
        scene.turns.workers = 2
        assert Room(0) == scene.turns.reserve(4, ["acme"])
        scene.load.share_of_core = 0.0
        scene.turns.close()
        assert Room(0) == scene.turns.reserve(4, ["acme"])

    play(story)


def test_accept_gives_each_its_share() -> None:
    """While several workspaces want slots, accept leases only a limited number for each."""

    async def story(scene: Scene) -> None:
        scene.slots.want("acme")
        scene.slots.want("bolt")
        room = scene.turns.reserve(100, ["acme", "bolt"])
        assert (OF_ONE, {"acme": OF_ONE, "bolt": OF_ONE}) == (room.hints, room.of_each)
        assert OF_ONE < 1000 * SHARE // (SHARE + 1), "or it would not be the bound"

    play(story, slots=1000)


def test_slots_that_become_free_while_turns_begin() -> None:
    """Slots that a first claim did not need go to waiting endpoints, each slot once."""

    async def story(scene: Scene) -> None:
        scene.ledger.gate.shut()
        scene.ledger.due |= {"a": ["e1"], "b": ["e2"], "c": ["e3"]}
        scene.turns.serve([A, B, C])
        assert 1 == len(scene.turns), "which took all slots for its first claim"
        await until(lambda: scene.ledger.gate.waiting, "its claim")
        scene.sender.gate.shut()
        scene.ledger.gate.open()
        await until(lambda: len(scene.sender.sent) == 3, "all three")
        assert ["a", "b", "c"] == [endpoint for endpoint, _ in scene.ledger.claims]
        assert 3 == scene.slots.taken
        scene.sender.gate.open()
        await scene.ended()

    play(story, slots=4)


def test_a_first_claim_makes_room_for_the_next() -> None:
    """Few turns of a workspace make their first claim at once; the next one does while others' POSTs are in flight."""

    async def story(scene: Scene) -> None:
        scene.sender.gate.shut()
        endpoints = [f"a{n}" for n in range(6)]
        scene.ledger.due |= {one: [f"{one}-{n}" for n in range(FIRST_CLAIM)] for one in endpoints}
        scene.turns.serve(Hint(one, "acme") for one in endpoints)
        assert 4 == len(scene.turns)
        await until(lambda: len(scene.sender.sent) == 6 * FIRST_CLAIM, "all of them")
        scene.sender.gate.open()
        await scene.ended()

    play(story, slots=1000)


def test_what_accept_gives_an_endpoint_that_waits() -> None:
    """A waiting endpoint has a turn at once if accept leases its callbacks; when its place comes, that turn claims."""

    async def story(scene: Scene) -> None:
        scene.sender.gate.shut()
        room = scene.turns.reserve(3, ["acme"])
        scene.turns.serve([A])
        scene.turns.serve_claims([("a", claim("e1", "e2", "e3"))], room.claims)
        await until(lambda: len(scene.sender.sent) == 3, "what was given")
        assert [] == scene.ledger.claims
        scene.ledger.due["a"] = ["e4"]
        scene.sender.gate.open()
        await until(lambda: "e4" in scene.sender.sent, "what waited")
        await scene.ended()
        assert 0 == scene.turns._admission._beginning.total(), "it counts as one that begins no longer"

    play(story, slots=3)


def test_many_slots_become_free_at_once() -> None:
    """Waiting endpoints are admitted once for all slots that become free, after the code that frees them."""

    async def story(scene: Scene) -> None:
        for number, hint in enumerate((A, B), 1):
            assert 3 == scene.slots.take("x", "other", 4)
            scene.turns.serve([hint])
            for _ in range(3):
                scene.slots.give_back("x", "other", 1)
            assert number - 1 == len(scene.ledger.claims)
            asked = scene.turns._admission._asked
            await asyncio.sleep(0)
            assert 1 == scene.turns._admission._asked - asked, "once, for the one that begins"
            await scene.ended()
            assert number == len(scene.ledger.claims)

    play(story, slots=4)


def test_a_first_claim_that_fails_makes_room() -> None:
    """While Redis is away turns end at their first claim, those behind them begin, and each logs the consequence."""

    async def story(scene: Scene) -> None:
        scene.ledger.error = RedisUnavailable("away")
        scene.turns.serve(Hint(f"a{n}", "acme") for n in range(20))
        with capture_logs() as logged:
            await scene.ended()
        assert 20 == len({endpoint for endpoint, _ in scene.ledger.claims})
        assert 20 == [line["event"] for line in logged].count("turn.interrupted")
        assert [] == scene.hints, "the waker finds them when Redis is back"

    play(story)


def test_a_turn_that_breaks() -> None:
    """An internal error ends a turn; its endpoint is served again when it is hinted again."""

    async def story() -> None:
        scene = Scene()
        scene.ledger.due["a"] = ["e1", "e2"]
        scene.settler.counted = []
        scene.turns.hint([A])
        await scene.ended()
        scene.settler.counted = None
        scene.ledger.due["a"] = ["e3"]
        scene.turns.hint([A])
        await scene.ended()
        assert "e3" in scene.settler.event_ids

    assert [ValueError] == [type(one) for one in played(story())]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RedisUnavailable("away"), ("warning", "turn.interrupted", None)),
        (EndpointBroken("WRONGTYPE of its lane"), ("error", "turn.interrupted", "WRONGTYPE of its lane")),
        (KeyError("bug"), ("error", "turn.internal_error", None)),
    ],
)
@pytest.mark.parametrize("call", ["claim", "settle"])
def test_a_call_fails(error: Exception, said: tuple[str, str, str | None], call: str) -> None:
    """The turn ends and says why; it keeps no slot, and its endpoint can be served again."""

    async def story(scene: Scene) -> None:
        scene.ledger.due["a"] = ["e1"]
        failing = scene.ledger if call == "claim" else scene.settler
        failing.error = error
        with capture_logs() as logged:
            scene.turns.hint([A])
            await scene.ended()
        [line] = [one for one in logged if one["event"].startswith("turn.")]
        assert said == (line["log_level"], line["event"], line.get("problem"))
        assert 0 == scene.slots.taken
        failing.error = None
        scene.ledger.due["a"] = ["e2"]
        scene.turns.hint([A])
        await scene.ended()
        assert "e2" in scene.settler.event_ids

    play(story)


def test_an_attempt_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks when an attempt has been made costs the line or the count that broke, not the slot, and not the turn."""

    async def story(scene: Scene) -> None:
        def breaks(*_: Any) -> None:
            raise KeyError("bug")

        monkeypatch.setattr(scene.parts.tail, "add", breaks)
        scene.ledger.due["a"] = ["e1"]
        with capture_logs() as logged:
            scene.turns.hint([A])
            await scene.ended()
        assert ["callback.attempted", "callback.internal_error"] == [line["event"] for line in logged]
        [(_, [settlement], _)] = scene.settler.asked
        assert isinstance(settlement.outcome, Delivered)

    play(story)


def test_an_attempt_that_cannot_be_decided_on() -> None:
    """It is put back, as with any fault of ours, and its turn goes on."""

    async def story(scene: Scene) -> None:
        scene.sender.answer = Attempt(NOW_MS, None, 200)  # type: ignore[arg-type]
        scene.ledger.due["a"] = ["e1"]
        with capture_logs() as logged:
            scene.turns.hint([A])
            await scene.ended()
        assert ["callback.internal_error"] == [line["event"] for line in logged]
        [(_, [settlement], _)] = scene.settler.asked
        assert Released(INTERNAL_ERROR_DELAY_MS) == settlement.outcome

    play(story)


def test_an_intake_that_accepts_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server of a partition that is behind falls silent, callbacks of the others start as before."""

    async def story(scene: Scene) -> None:
        scene.sender.gate.shut()
        scene.turns.set_intake_behind(True, 1)
        monkeypatch.setattr(turns, "ACCEPTS_SECONDS", 0.0)
        scene.turns.set_intake_behind(False, 0)  # as an intake with nothing to do says, once a second
        scene.ledger.due["a"] = [f"e{n}" for n in range(2 * RATION)]
        scene.turns.hint([A])
        await quiet(200)
        assert 2 * RATION == len(scene.sender.sent)
        scene.sender.gate.open()
        await scene.ended()

    play(story, slots=400)


def test_intake_that_is_behind_goes_first() -> None:
    """While intake is behind, one callback starts for sixteen that it accepts; the others start afterwards."""

    async def story(scene: Scene) -> None:
        scene.sender.gate.shut()
        scene.ledger.due["a"] = [f"e{n}" for n in range(100)]
        scene.turns.set_intake_behind(True)
        scene.turns.hint([A])
        await quiet(200)
        assert RATION == len(scene.sender.sent)
        scene.turns.hint([B])
        await quiet()
        assert {"a"} == {endpoint for endpoint, _ in scene.ledger.claims}
        scene.turns.set_intake_behind(True)
        await until(lambda: ("b", 4) in scene.ledger.claims, "the turn that waited, with the next batch")
        scene.turns.set_intake_behind(False)
        scene.turns.hint([A])
        scene.sender.gate.open()
        await scene.ended()
        assert 100 == len(scene.settler.event_ids)
        assert 16 * RATION == BATCH_BEHIND

    play(story, slots=1000)


def test_stop_while_turns_run() -> None:
    """On a stop, POSTs in flight end and are recorded, nothing more is claimed, and other workers get the rest."""

    async def story(scene: Scene) -> None:
        scene.sender.gate.shut()
        scene.ledger.due["a"] = [f"e{n}" for n in range(8)]
        scene.turns.serve([A])
        await until(lambda: len(scene.sender.sent) == 3, "all slots in use")
        scene.turns.serve([B, C])
        scene.settler.more = True
        scene.turns.close()
        assert [B, C] == scene.hints, "those that waited"
        ending = asyncio.create_task(scene.turns.ended())
        await quiet()
        assert not ending.done()
        scene.sender.gate.open()
        await ending
        assert ["e0", "e1", "e2"] == sorted(scene.settler.event_ids)
        assert {0} == {claim for _, _, claim in scene.settler.asked}
        assert [B, C, A] == scene.hints
        assert [("a", 3)] == scene.ledger.claims
        await scene.ended()

    play(story, slots=4)


def test_stop_while_a_claim_is_under_way() -> None:
    """Callbacks of a claim that is under way at a stop are sent and recorded before the turns have ended."""

    async def story(scene: Scene) -> None:
        scene.ledger.gate.shut()
        scene.ledger.due["a"] = ["e1", "e2"]
        scene.turns.serve([A])
        await until(lambda: scene.ledger.gate.waiting, "a claim")
        scene.turns.close()
        scene.turns.close()
        ending = asyncio.create_task(scene.turns.ended())
        await quiet()
        assert not ending.done()
        scene.ledger.gate.open()
        await ending
        assert ["e1", "e2"] == sorted(scene.settler.event_ids)
        assert [A] == scene.hints, "it was nudged, and claims nothing more"
        await scene.ended()

    play(story)


def test_stop_while_accept_is_under_way() -> None:
    """Callbacks of an accept under way at a stop are sent, although the slots are closed."""

    async def story(scene: Scene) -> None:
        room = scene.turns.reserve(4, ["acme"])
        scene.turns.close()
        scene.turns.serve_claims([("a", claim("e1")), ("b", claim("e2", workspace="bolt"))], room.claims)
        await scene.ended()
        assert ["e1", "e2"] == sorted(scene.settler.event_ids)

    play(story)


def test_hints_that_come_while_it_stops() -> None:
    """Hints that come during a stop go to other workers, whatever their source, even if this one knows of no other."""

    async def story(scene: Scene) -> None:
        scene.turns.close()
        scene.turns.hint([A])
        scene.turns.serve([B])
        scene.turns.set_intake_behind(False)
        await quiet()
        assert ([A, B], 0, []) == (scene.hints, len(scene.turns), scene.ledger.claims)

    play(story)


def test_a_turn_that_waits_for_a_token_ends_at_once() -> None:
    """A stop does not wait for the next token of an endpoint's rate."""

    async def story(scene: Scene) -> None:
        scene.ledger.wait_ms = 3_600_000
        scene.turns.hint([A])
        await until(lambda: scene.ledger.claims, "a claim")
        await quiet()
        assert 1 == len(scene.turns)
        scene.turns.close()
        await scene.ended()
        assert [A] == scene.hints

    play(story)
