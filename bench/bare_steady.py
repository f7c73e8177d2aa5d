"""The lower bound of latency: an aiohttp loop that posts each status change it reads from standard input; see bare_loop.

A line is a status change as `bench.load` makes it, so that latencies count from the same stamp as ours do.
"""

import asyncio
import json
import sys
from typing import BinaryIO

import uvloop

from bench.bare_loop import Session, Setup, post, rendered

LONGEST_LINE = 1 << 26
"""Also the lines that wait in the process: the one that writes them is never held up."""


async def post_lines(setup: Setup, source: BinaryIO) -> None:
    """Posts what it reads until the end of the input."""
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), source)
    async with Session(setup) as session:
        print("ready.", file=sys.stderr, flush=True)
        posts: set[asyncio.Task[None]] = set()
        while line := await lines.readline():
            task = asyncio.create_task(post(session.client, *rendered(line)))
            posts.add(task)
            task.add_done_callback(posts.discard)
        await asyncio.gather(*posts)


if __name__ == "__main__":
    uvloop.run(post_lines(Setup(**json.loads(sys.argv[1])), sys.stdin.buffer))
