"""`make bench-console`: how fast the console's pages are, and what 20 people who watch cost callbacks.

A Redis with a million callbacks, 10,000 endpoints and 1,000 workspaces; every page is asked for 200 times, one after the other,
alone and while 20 viewers' pages are renewed. Then a worker delivers at a steady rate, with and without the viewers in turn.
"""

import argparse
import asyncio
import http.client
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from urllib.parse import urlencode

import aiohttp

from bench.console_fill import Filled, Size, event_id, fill, message
from bench.contenders import ratio
from bench.load import Customer
from bench.receiver import Receiver, cpu_seconds
from bench.report import Progress, keep, machine, percentile, spread, table
from bench.stack import Stack, running
from tasks.console import pages
from tasks.console.site import PAGES
from tasks.give_way import give_way
from tests.acceptance.stack import free_port

FULL, QUICK = Size(1_000_000, 10_000, 1_000), Size(50_000, 1_000, 100)
ASKED, ASKED_QUICK = 200, 30
RATE, ROUNDS, SECONDS = 300, 11, 10
"""Callbacks a second; rounds with and without viewers, and how long each is."""
PAUSE_SECONDS = 6.0
"""How long the first snapshot may be renewed before pages are measured, and viewers run before callbacks are."""
LEFT_OUT = ("/login", "/login/oidc", "/login/oidc/back", "/enter")
"""Pages without a session: they read nothing that grows."""

assert pages.ALL  # importing them fills PAGES


@dataclass
class Took:
    """What asking for one page took."""

    ms: list[float] = field(default_factory=list)
    first_ms: float = 0.0
    """The very first time."""
    size: int = 0
    """Bytes of its HTML."""


def asked(filled: Filled, work: str) -> dict[str, str]:
    """What is asked for: a name, and path and query. Every page is among them. `work` is the path of a piece of work."""
    failed, waiting, workspace = filled.first(failed=True), filled.first(failed=False), filled.workspace(7)
    of = {"owner": filled.workspace(failed), "url": filled.url(failed)}

    def at(path: str, **query: object) -> str:
        return f"{path}?{urlencode(query)}" if query else path

    found = {
        "overview": "/",
        "overview of a week": at("/", span="week"),
        "endpoints": "/endpoints",
        "endpoints in trouble": at("/endpoints", state="trouble"),
        "endpoints, the last page": at("/endpoints", **{"from": filled.size.endpoints - 50}),
        "endpoint": at("/endpoint", **of),
        "callbacks that failed": at("/callbacks", state="failed"),
        "callbacks that ended": at("/callbacks", state="ended"),
        "failed of a workspace": at("/callbacks", state="failed", workspace=filled.workspace(failed)),
        "failed with an error that none had": at("/callbacks", state="failed", error="http_418"),
        "callbacks that wait": at("/callbacks", state="waiting"),
        "waiting of a workspace": at("/callbacks", state="waiting", workspace=filled.workspace(waiting)),
        "waiting of a workspace, none": at("/callbacks", state="waiting", workspace=filled.workspace(8)),
        "callbacks of a message": at("/callbacks", workspace=workspace, message=message(7)),
        "callback": at("/callback", workspace=of["owner"], id=event_id(failed)),
        "callback that waits": at("/callback", workspace=filled.workspace(waiting), id=event_id(waiting)),
        "rejected": "/rejected",
        "rejected of a workspace": at("/rejected", workspace=workspace),
        "workspaces": "/workspaces",
        "workspaces by name": at("/workspaces", q="99"),
        "workspace": at("/workspace", id=workspace),
        "workspace over a week": at("/workspace", id=workspace, span="week"),
        "subscription": at("/subscription", workspace=workspace, subscription="default"),
        "live": "/live",
        "live/events, until it begins": "/live/events",
        "signature": "/signature",
        "work": "/work",
        "piece of work": work,
        "log": "/log",
        "log of a workspace": at("/log", workspace=workspace),
        "account": "/account",
        "search": "/search",
    }
    texts = {
        "an eventId": event_id(failed),
        "a message": message(70),
        "a customer's id": "c-70",
        "a number": "+233200000070",
        "a reference": "order-70",
        "a workspace": workspace,
        "a part of a URL": "hooks-70",
        "nothing": "there-is-no-such-thing",
    }
    found |= {f"search for {name}": at("/search", q=text) for name, text in texts.items()}
    known = {path.partition("?")[0] for path in found.values()} | {"/work/{id}", *LEFT_OUT}
    missing = {one.path for one in PAGES if "GET" in one.methods} - known
    assert not missing, f"pages that are not measured: {missing}"
    return found


def watched(filled: Filled) -> list[tuple[str, Sequence[float]]]:
    """What 20 viewers have open: a path, and how often the parts of the page are renewed, in seconds; none: it is a stream.

    A part asks for the whole page; those that are renewed at the same time do so once (console.js).
    """
    failed, waiting = filled.first(failed=True), filled.first(failed=False)
    overview = [("/", (5.0,))] * 8  # its other parts come with every second and every twelfth of these
    live: list[tuple[str, Sequence[float]]] = [("/live/events", ())] * 5
    lists = [("/endpoints", (5.0,))] * 2 + [("/endpoints?state=trouble", (5.0,))]
    endpoint = urlencode({"owner": filled.workspace(failed), "url": filled.url(failed)})
    callback = urlencode({"workspace": filled.workspace(waiting), "id": event_id(waiting)})
    callbacks = [("/callbacks?state=failed", (5.0,))]
    return [
        *overview,
        *live,
        *lists,
        (f"/endpoint?{endpoint}", (5.0,)),
        (f"/callback?{callback}", (3.0,)),
        *callbacks,
        ("/work", (2.0,)),
    ]


class Console:
    """A console's process, and a session."""

    def __init__(self, stack: Stack) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        made = stack.command("console-key", "add", "bench", "--role", "admin", "--json")
        stack.start(sys.executable, "-m", "tasks", "console", "--port", str(port), ready="running on")
        self._process = stack.workers[-1]
        self._at = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookie = self._post("/login", {"key": made["apiKey"]})["set-cookie"].partition(";")[0]

    def cpu_seconds(self) -> float:
        """CPU seconds of its process so far."""
        return cpu_seconds(self._process.pid)

    def work(self) -> str:
        """The path of a piece of work."""
        return self._post("/endpoints/retry", {"state": "stopped"})["location"].removeprefix(self.url)

    def get(self, path: str) -> tuple[float, int]:
        """Asks for a page; ms, and bytes. Of a stream only the first line."""
        began = time.perf_counter()
        self._at.request("GET", path, headers={"Cookie": self.cookie})
        answer = self._at.getresponse()
        is_stream = path == "/live/events"
        size = len(answer.readline() if is_stream else answer.read())
        took = (time.perf_counter() - began) * 1000
        if answer.status not in (200, 303):
            raise SystemExit(f"error: {path} answered {answer.status}")
        if is_stream:
            self._at.close()
        return took, size

    def text(self, path: str) -> str:
        """A page."""
        self._at.request("GET", path, headers={"Cookie": self.cookie})
        return self._at.getresponse().read().decode()

    def connect_anew(self) -> None:
        """Gives up the connection: the console ends one that nobody used for some seconds."""
        self._at.close()

    def _post(self, path: str, form: Mapping[str, str]) -> Mapping[str, str]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        if path != "/login":
            headers["Cookie"] = self.cookie
        self._at.request("POST", path, urlencode(form), headers)
        answer = self._at.getresponse()
        answer.read()
        assert answer.status == 303, (path, answer.status)
        return {name.lower(): value for name, value in answer.getheaders()}


@contextmanager
def viewers(console: Console, filled: Filled) -> Iterator[list[float]]:
    """20 viewers while the block runs, in a process of their own; at its end the list has the ms that their pages took."""
    took: list[float] = []
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(
        target=_watch_in_process, args=(theirs, console.url, console.cookie, watched(filled)), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield took
        pipe.send("stop")
        said = pipe.recv()
        if isinstance(said, str):
            raise SystemExit(f"error: a viewer: {said}")
        took += said
    finally:
        process.join(5)
        process.kill()


def _watch_in_process(
    pipe: Connection, url: str, cookie: str, paths: list[tuple[str, Sequence[float]]]
) -> None:
    give_way(19)  # people have machines of their own: what measures here must not hold up the callbacks
    asyncio.run(_watch(pipe, url, cookie, paths))


async def _watch(pipe: Connection, url: str, cookie: str, paths: list[tuple[str, Sequence[float]]]) -> None:
    took: list[float] = []
    connector, headers, number = aiohttp.TCPConnector(limit=0), {"Cookie": cookie}, count()
    async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:
        tasks = [
            asyncio.create_task(_renewed(session, path, every, next(number) * 0.37 % 1, took))
            for path, parts in paths
            for every in parts
        ]
        tasks += [asyncio.create_task(_streamed(session, path)) for path, parts in paths if not parts]
        stop = asyncio.create_task(asyncio.to_thread(pipe.recv))
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        problems = [repr(task.exception()) for task in done if task is not stop]
        pipe.send(problems[0] if problems else took)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _renewed(
    session: aiohttp.ClientSession, path: str, every: float, after: float, took: list[float]
) -> None:
    await asyncio.sleep(after * every)
    while True:
        began = time.perf_counter()
        async with session.get(path) as answer:
            await answer.read()
            assert answer.status == 200, (path, answer.status)
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(every)


async def _streamed(session: aiohttp.ClientSession, path: str) -> None:
    while True:
        async with session.get(path, timeout=aiohttp.ClientTimeout(None)) as answer:
            async for _ in answer.content.iter_any():
                pass


def page_times(
    console: Console, paths: Mapping[str, str], times: int, how: str, progress: Progress
) -> dict[str, Took]:
    """What each page took."""
    console.connect_anew()
    found: dict[str, Took] = {}
    for name, path in paths.items():
        progress.start(f"{name}, {how}")
        one = found[name] = Took()
        one.first_ms, one.size = console.get(path)
        one.ms = [console.get(path)[0] for _ in range(times)]
        if sys.stderr.isatty():
            continue
        print(f"  {percentile(one.ms, 0.95):.1f} ms", file=sys.stderr)
    return found


def settle(console: Console) -> None:
    """Waits until the overview's week is read."""
    for _ in range(100):
        if "are missing yet" not in console.text("/?span=week"):
            return
        time.sleep(0.5)


def pages_table(alone: Mapping[str, Took], beside: Mapping[str, Took], size: Size) -> str:
    """A row for each page."""
    rows = [
        [
            name,
            *(f"{percentile(of[name].ms, share):.1f}" for of in (alone, beside) for share in (0.5, 0.95)),
            f"{max(beside[name].ms):.0f}",
            f"{alone[name].first_ms:.0f}",
            f"{alone[name].size / 1000:.0f}",
        ]
        for name in alone
    ]
    worst = max((percentile(of[name].ms, 0.95), name) for of in (alone, beside) for name in of)
    head = [
        f"{size.callbacks:,} callbacks, {size.endpoints:,} endpoints",
        "p50 ms", "p95 ms", "p50 with 20 viewers", "p95", "longest", "the first time", "kB",
    ]  # fmt: skip
    return f"{table(head, rows)}\n\nThe highest p95 is {worst[0]:.0f} ms: {worst[1]}."


def callbacks_table(stack: Stack, console: Console, filled: Filled, receiver: Receiver, run: "Run") -> str:
    """A worker's callbacks with and without viewers, in turn."""
    run.progress.start("the worker starts")
    stack.start()
    made = stack.customers("bench", [receiver.url(number) for number in range(100)])
    stack.load.burst("w", made, 2 * len(made))
    _arrived(stack, receiver, "w", 2 * len(made))
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(run.rounds):
        for name in ("nobody watches", "20 viewers"):
            run.progress.start(f"callbacks at {run.rate}/s, {name}")
            if name == "nobody watches":
                _steady(stack, receiver, made, run, found, name)
                continue
            with viewers(console, filled) as took:
                time.sleep(PAUSE_SECONDS)
                began, cpu = time.monotonic(), console.cpu_seconds()
                _steady(stack, receiver, made, run, found, name)
                found["cpu"].append(100 * (console.cpu_seconds() - cpu) / (time.monotonic() - began))
            for share in (0.5, 0.95, 0.99):
                found[f"pages {share}"].append(percentile(took, share))
    shares = (0.5, 0.95, 0.99)
    rows = [
        [name, *(spread(found[f"{name} {share}"]) for share in shares)]
        for name in ("nobody watches", "20 viewers")
    ]
    ratios = [ratio(found[f"20 viewers {share}"], found[f"nobody watches {share}"]) for share in shares]
    rows += [
        ["ratio", *ratios],
        ["the viewers' pages", *(spread(found[f"pages {share}"]) for share in shares)],
    ]
    said = table([f"callbacks at {run.rate}/s, XADD to arrival", "p50 ms", "p95 ms", "p99 ms"], rows)
    return f"{said}\n\nWhile they watch, the console takes {spread(found['cpu'])} % of a core."


def _steady(
    stack: Stack,
    receiver: Receiver,
    made: Sequence[Customer],
    run: "Run",
    found: dict[str, list[float]],
    name: str,
) -> None:
    receiver.take()
    sent = stack.load.steady(run.rate, run.seconds, {"b": made})["b"]
    _arrived(stack, receiver, "b", sent)
    latencies = receiver.take()["b"].latencies_us
    for share in (0.5, 0.95, 0.99):
        found[f"{name} {share}"].append(percentile(latencies, share) / 1000)


def _arrived(stack: Stack, receiver: Receiver, group: str, number: int) -> None:
    deadline = time.monotonic() + 60
    while receiver.count(group) < number:
        if time.monotonic() > deadline:
            raise SystemExit(f"error: waited for {number} callbacks; see {stack.folder}")
        time.sleep(0.05)


@dataclass(frozen=True)
class Run:
    """How the second part is run."""

    progress: Progress
    rate: int
    rounds: int
    seconds: float


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the tables; `--keep` puts them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--callbacks", type=int, help="how many callbacks there are")
    parser.add_argument("--endpoints", type=int, help="how many endpoints")
    parser.add_argument("--workspaces", type=int, help="how many workspaces")
    parser.add_argument("--rate", type=int, default=RATE, help="callbacks a second while 20 watch")
    parser.add_argument("tables", nargs="*", help="only these: pages, callbacks")
    options = parser.parse_args(arguments)
    if unknown := set(options.tables) - {"pages", "callbacks"}:
        parser.error(f"there is no table {', '.join(sorted(unknown))}")
    of = QUICK if options.quick else FULL
    size = Size(
        options.callbacks or of.callbacks,
        options.endpoints or of.endpoints,
        options.workspaces or of.workspaces,
    )
    rounds, seconds = (1, 5) if options.quick else (ROUNDS, SECONDS)
    wanted = options.tables or ["pages", "callbacks"]
    progress = Progress(
        2
        + ("pages" in wanted) * (1 + 2 * len(asked(Filled(size, 0), "")))
        + ("callbacks" in wanted) * (1 + 2 * rounds)
    )
    found: list[str] = []
    with running(workers=0, aof="off") as stack, Receiver("ok") as receiver:
        stack.customers("customer", [f"https://hooks.customer{n}.example" for n in range(size.workspaces)])
        filled = fill(stack.client, size, progress)
        console = Console(stack)
        if "pages" in wanted:
            found.append(_pages(console, filled, ASKED_QUICK if options.quick else ASKED, progress))
        if "callbacks" in wanted:
            found.append(
                callbacks_table(
                    stack, console, filled, receiver, Run(progress, options.rate, rounds, seconds)
                )
            )
    progress.end()
    said = f"On {machine()}; `make bench-console` repeats it. {rounds} rounds of callbacks; median, and lowest to highest."
    text = "\n\n".join([said, *found])
    print(text)
    if options.keep and not options.tables:
        keep("console", text)


def _pages(console: Console, filled: Filled, times: int, progress: Progress) -> str:
    paths = asked(filled, console.work())
    progress.start("the first look: a snapshot, and the week of all workspaces")
    settle(console)
    alone = page_times(console, paths, times, "alone", progress)
    with viewers(console, filled):
        time.sleep(PAUSE_SECONDS)
        beside = page_times(console, paths, times, "20 viewers", progress)
    return pages_table(alone, beside, filled.size)


if __name__ == "__main__":
    main(sys.argv[1:])
