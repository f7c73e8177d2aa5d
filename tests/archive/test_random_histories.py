"""Random histories of events, subscriptions and retiring against a model."""

import random

import pytest
from msgspec.structs import replace

from dispatcher.rules.outcomes import Delivered, Failed
from dispatcher.store.arguments import NOT_ARCHIVED
from tests.archive.retiring_scene import Scene
from tests.world import callback

A = "acme https://a.example:443"
SUBS = {"s1": "acme.s1 https://b.example:443", "s2": "acme.s2 https://c.example:443"}


@pytest.mark.parametrize("seed", range(25))
def test_random(scene: Scene, seed: int) -> None:
    rnd = random.Random(seed)
    known: dict[str, tuple[str, set[str]]] = {}
    archive: dict[str, str] = {}
    digests: dict[str, str] = {}
    posted: dict[str, int] = {}
    allowed: dict[str, int] = {}
    events = [f"e{n}" for n in range(8)]
    most_archived = 0

    def event():  # type: ignore[no-untyped-def]
        id_ = rnd.choice(events)
        digest = "d" * 24 if rnd.random() < 0.8 else "f" * 24
        subs = [one for one in SUBS if rnd.random() < 0.5]
        own = rnd.random() < 0.8 or not subs
        found = [
            replace(
                callback(
                    f"{id_}.{one}",
                    endpoint=f"acme {SUBS[one].split()[1]}",
                    digest=digest,
                    message=f"m{rnd.randrange(3)}",
                )
            )
            for one in subs
        ]
        message = f"m{int(id_[1:]) % 3}"
        found = [
            replace(one, message_uuid=message, endpoint=SUBS[sub])
            for one, sub in zip(found, subs, strict=False)
        ]
        mine = callback(id_, digest=digest, message=message)
        return (
            id_,
            digest,
            {*(one.event_id for one in found), *([id_] if own else [])},
            [*found, mine if own else replace(mine, endpoint="")],
        )

    def accept(batch, archived=None):  # type: ignore[no-untyped-def]
        callbacks = [one for _, _, _, some in batch for one in some]
        entries = [entry for entry, (_, _, _, some) in zip(queue, batch, strict=False) for _ in some]
        return scene.accept(*callbacks, entries=entries, archived=archived)[1]

    for _ in range(60):
        what = rnd.random()
        if what < 0.4:
            batch = [event() for _ in range(rnd.randint(1, 4))]
            queue = scene.enqueued(len(batch))
            words = accept(batch)
            left = [n for n, word in enumerate(words) if word == "retired"]
            assert scene.call("xlen", scene.keys.events) == len(left), words
            expected = dict(enumerate(words))
            order = [n for n in range(len(batch)) if n not in left] + left
            if left:
                some = [batch[n] for n in left]
                queue = [queue[n] for n in left]
                said = {
                    one.event_id: archive.get(one.event_id, NOT_ARCHIVED)
                    for _, _, _, cs in some
                    for one in cs
                }
                expected |= dict(zip(left, accept(some, said), strict=True))
            assert 0 == scene.call("xlen", scene.keys.events), expected
            for n in order:
                id_, digest, ids, _ = batch[n]
                if id_ not in known:
                    assert expected[n] == "accepted", (id_, expected[n])
                    known[id_] = digest, ids
                    for one in ids:
                        digests[one] = digest
                        allowed[one] = 1
                else:
                    assert expected[n] == ("duplicate" if known[id_][0] == digest else "conflict"), (
                        id_,
                        expected[n],
                        known[id_],
                    )
        elif what < 0.7:
            for endpoint in (A, *SUBS.values()):
                for one in scene.claim(endpoint, count=rnd.randint(1, 5)).callbacks:
                    posted[one.event_id] = posted.get(one.event_id, 0) + 1
                    failed = rnd.random() < 0.3
                    scene.settle(
                        one.event_id,
                        one.claim,
                        Failed() if failed else Delivered(),
                        endpoint=endpoint,
                        error="http_500" if failed else None,
                    )
        elif what < 0.95:
            ended = []
            for one in sorted(digests):
                entry = scene.entry(one)
                words = (entry or b"").split(b"\n")[0].split(b" ")
                if len(words) > 9 and words[9].isdigit():
                    ended.append(one)
            some = rnd.sample(ended, rnd.randint(0, len(ended)))
            archive |= {one: digests[one] for one in some}
            most_archived = max(most_archived, len(archive))
            assert len(some) == scene.retire(*some)
        else:
            ended = [
                one
                for one in sorted(digests)
                if (e := scene.entry(one)) and e.split(b"\n")[0].split(b" ")[4] == b"failed"
            ]
            if ended:
                one = rnd.choice(ended)
                word = scene.run(scene.ledger.replay("acme", one))
                if word == "replayed":
                    allowed[one] += 1
        scene.now += rnd.choice((0, 1, 1000))
    for endpoint in (A, *SUBS.values()):
        while found := scene.claim(endpoint).callbacks:
            for one in found:
                posted[one.event_id] = posted.get(one.event_id, 0) + 1
                scene.settle(one.event_id, one.claim, Delivered(), endpoint=endpoint)
    assert posted == allowed
    assert most_archived
