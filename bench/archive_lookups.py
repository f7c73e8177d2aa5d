"""`make bench-archive`: an archive with many rows: how fast they go in, their bytes on disk, and how long look-ups take."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench.archive import postgres_server
from bench.made_up import BATCH, DAYS, MadeUp
from bench.report import Progress, keep, machine, median, percentile, table
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.which import Which

LOOKUPS, PAGE = 200, 500
KINDS = ("SQLite", "PostgreSQL")
ROWS = 100_000

Figures = dict[str, str]
LookUp = Callable[[Archive, MadeUp, int], Awaitable[Sequence[object]]]
"""One look-up in an archive, of a random row's number."""


async def by_id(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """As `event show`."""
    return await archive.get([made.key(number)])


async def by_id_of_a_day(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """As a worker, which knows the day."""
    return await archive.get([made.key(number)], [made.day(number)])


async def by_message(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """As `event list --message`."""
    return await archive.of_message(made.key(number)[0], made.message(number))


async def first_page(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """As `event list --state failed` of a workspace."""
    return (await archive.ended(Which(made.key(number)[0], ("failed",)), None, PAGE)).found


async def page_of_a_day(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """The same of the 24 hours before a row."""
    end = made.ended_ms(number)
    which = Which(made.key(number)[0], ("delivered",), end - 86_400_000, end)
    return (await archive.ended(which, None, PAGE)).found


async def later_page(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """The page that begins after a row."""
    workspace, id_ = made.key(number)
    after = made.ended_ms(number), workspace, id_
    return (await archive.ended(Which(workspace, ("delivered",)), after, PAGE)).found


async def page_of_all(archive: Archive, made: MadeUp, number: int) -> Sequence[object]:
    """As `history`: all workspaces and states, the page that begins after a row."""
    return (await archive.ended(Which(), (made.ended_ms(number), *made.key(number)), PAGE)).found


LOOK_UPS: dict[str, LookUp] = {
    "one by its id": by_id,
    "one by its id, of a known day": by_id_of_a_day,
    "those of a message": by_message,
    f"a workspace's first {PAGE} that failed": first_page,
    f"a workspace's {PAGE} delivered of a day": page_of_a_day,
    f"a workspace's {PAGE} delivered, a later page": later_page,
    f"{PAGE} of all, a later page": page_of_all,
}


async def filled(archive: Archive, made: MadeUp, progress: Progress) -> Figures:
    """Puts all rows into an archive, which it makes."""
    await archive.migrate()
    took = []
    for first in range(0, made.rows, BATCH):
        batch = made.batch(first)
        began = time.monotonic()
        await archive.put(batch)
        took.append((time.monotonic() - began) / len(batch))
        progress.part(first / made.rows)
    last = took[-max(1, len(took) // 10) :]
    return {
        "rows/s into it": f"{len(took) / sum(took):,.0f}",
        "rows/s, the last tenth of them": f"{len(last) / sum(last):,.0f}",
    }


async def looked_up(archive: Archive, made: MadeUp) -> Figures:
    """The time of each kind of look-up."""
    found = {}
    for name, look_up in LOOK_UPS.items():
        chance, took, rows = random.Random(name), [], 0
        for _ in range(LOOKUPS):
            number = chance.randrange(made.rows)
            began = time.monotonic()
            rows += len(await look_up(archive, made, number))
            took.append((time.monotonic() - began) * 1000)
        if not rows:
            raise SystemExit(f"error: {name}: nothing was found")
        found[f"{name}, ms"] = f"{median(took):,.1f} ({percentile(took, 0.95):,.1f})"
    return found


async def measure(archive: Archive, made: MadeUp, progress: Progress, size: Callable[[], int]) -> Figures:
    """All figures of one archive; `size` returns its bytes on disk once all rows are in it."""
    progress.start(f"{made.rows:,} rows go in")
    figures = await filled(archive, made, progress)
    in_use = size()
    figures |= {"GB on disk": f"{in_use / 1e9:,.2f}", "bytes a row": f"{in_use / made.rows:,.0f}"}
    progress.start(f"{LOOKUPS} of each look-up")
    figures |= await looked_up(archive, made)
    await archive.aclose()
    return figures


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder: the database, and its log."""
    return sum(file.stat().st_size for file in folder.iterdir())


def postgres_size(url: str) -> int:
    """Bytes of all days, after what PostgreSQL does by itself some time after rows came: VACUUM and ANALYZE of each day."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        days = connection.execute(
            "SELECT inhrelid::regclass::text, inhrelid FROM pg_inherits WHERE inhparent = 'dispatcher.callback'::regclass"
        ).fetchall()
        for name, _ in days:
            connection.execute(f"VACUUM ANALYZE {name}")
        total = "SELECT sum(pg_total_relation_size(day))::bigint FROM unnest(%s::oid[]) AS day"
        row = connection.execute(total, [[day for _, day in days]]).fetchone()
        assert row
        return int(row[0])


def run(rows: int) -> str:
    """The table."""
    from dispatcher.store.archive.postgres import PostgresArchive

    made, progress = MadeUp(rows), Progress(2 * len(KINDS))
    with tempfile.TemporaryDirectory() as folder:
        archive = SqliteArchive(Path(folder) / "archive.db")
        lite = asyncio.run(measure(archive, made, progress, lambda: folder_size(Path(folder))))
    with postgres_server() as url:
        server = asyncio.run(
            measure(PostgresArchive(url, "PostgreSQL"), made, progress, lambda: postgres_size(url))
        )
    progress.end()
    lines = [[name, lite[name], server[name]] for name in lite]
    return (
        f"{rows:,} callbacks of {DAYS} days and 100 customers, on {machine()}; both databases in the page cache, PostgreSQL as it comes. "
        f"Look-ups: median of {LOOKUPS}, and the 95th percentile. `make bench-archive ROWS={rows}` repeats it.\n\n"
        f"{table(['archive', *KINDS], lines)}"
    )


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the table; `--keep` puts it into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.archive_lookups", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"how many rows, in place of {ROWS:,}")
    parser.add_argument("--keep", action="store_true", help="write the table into docs/performance.md")
    options = parser.parse_args(arguments)
    if options.rows < BATCH:
        parser.error(f"--rows: at least {BATCH:,}")
    text = run(options.rows)
    print(text)
    if options.keep:
        keep("archive", text)


if __name__ == "__main__":
    main(sys.argv[1:])
