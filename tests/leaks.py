"""Finds Redis keys that would stay for ever: neither permanent, nor with a time to live, nor of anything pending."""

from dispatcher.store.entry import read_entry
from dispatcher.store.keys import PERMANENT
from tests.world import World


def leaked_keys(world: World) -> list[str]:
    """Keys without a time to live that have no right to be there."""
    return [key for key in sorted(_without_life(world)) if not _belongs(world, key)]


def _without_life(world: World) -> list[str]:
    root = world.keys.root
    keys = world.call("keys", f"{root}*" if "{" in root else "*")  # a server may hold several partitions

    async def lives() -> list[int]:
        async with world.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.pttl(key)
            return await pipe.execute()

    return [key.decode() for key, life in zip(keys, world.run(lives()), strict=True) if life == -1]


def _belongs(world: World, key: str) -> bool:
    kind, _, rest = key.removeprefix(world.keys.root).partition(":")
    match kind:
        case _ if kind in PERMANENT:
            return True
        case "event" | "body":
            raw = world.call("get", f"{world.keys.root}event:{rest}")
            return raw is not None and not read_entry(raw).ended
        case "schedule" if not rest:
            return True  # wake removes workspaces of which nothing is scheduled
        case "lane" | "leased" | "chain" | "expiries" | "schedule":
            return bool(world.call("zcard", world.keys.expiries))
        case "endpoint":
            return bool(world.call("hexists", key, "stopped"))
    return False
