"""`make bench-isolation`: what bad endpoints, a burst and an outage cost the other customers.

One worker with default settings. Each phase has a fresh Redis and worker; the phases of a round follow one
another, and ratios are within one round.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.fill import fill
from bench.load import Customer
from bench.names import NameServer
from bench.receiver import Group, Receiver
from bench.report import Progress, keep, machine, percentile, spread, table
from bench.stack import Stack, running, wait_until

RATE, HEALTHY = 400, 100
KINDS = ("ok", "hang", "busy", "drip")
"""The receiver's ports. Other kinds: `refuse` is a port without a listener, `slow` a name whose look-up takes 2 s."""

BESIDE = (
    ("none", 0, "nobody: all of it to the healthy"),
    ("ok", 500, "500 that work"),
    ("hang", 1, "1 that hangs"),
    ("hang", 100, "100 that hang"),
    ("hang", 500, "500 that hang"),
    ("refuse", 100, "100 that refuse"),
    ("busy", 100, "100 that answer 503"),
    ("drip", 100, "100 that drip"),
    ("slow", 100, "100 whose look-up takes 2 s"),
)
"""Where the second half of the traffic goes; the first entry is the base of the ratios."""


@dataclass(frozen=True)
class Phase:
    """The healthy endpoints' latency from XADD to arrival, in milliseconds, and their lost callbacks."""

    p50: float
    p95: float
    p99: float
    lost: int


class Isolation:
    """Runs the phases, with one receiver and one name server."""

    def __init__(self, receiver: Receiver, names: NameServer, seconds: float, progress: Progress) -> None:
        self._receiver = receiver
        self._names = names
        self._seconds = seconds
        self._progress = progress

    def beside(self, kind: str, count: int) -> Phase:
        """Sends half of the traffic to healthy endpoints, half to `count` others of a kind."""
        with running(DNS_SERVERS=self._names.address) as stack:
            healthy = stack.customers("w", [self._receiver.url(n + 1) for n in range(HEALTHY)])
            others = stack.customers("x", [self._url(kind, n) for n in range(count)]) or healthy
            self._warm_up(stack, healthy)
            sent = stack.load.steady(
                RATE,
                self._seconds,
                {"h": healthy, "h" if others is healthy else "x": others},
                tell=self._progress.part,
            )
            wait_until(lambda: self._receiver.count("h") >= sent["h"], 60, "the healthy endpoints' callbacks")
            arrived = self._receiver.take()["h"]
        return phase(arrived, sent["h"])

    def burst(self, count: int) -> tuple[float, int]:
        """Seconds that another customer's status change waits behind a burst, and how many entries were ahead of it."""
        with running() as stack:
            many = stack.customers("w", [self._receiver.url(n + 1) for n in range(HEALTHY)])
            [other] = stack.customers("o", [self._receiver.url(5000)])
            self._warm_up(stack, [*many, other])
            stack.load.burst("b", many[:1], count)
            before = stack.client.xlen("dispatcher:events")
            stack.load.send("o", [other])
            wait_until(lambda: self._receiver.count("o") == 1, 300, "the other customer's callback")
            found = self._receiver.take()
        return found["o"].latencies_us[0] / 1e6, before

    def outage(self, waiting: int) -> tuple[float, Phase, Phase]:
        """An endpoint recovers while `waiting` callbacks wait: how many of them a second it takes then, and the latency
        of its new callbacks and of healthy neighbours meanwhile."""
        with running(BREAKER_PAUSE_SECONDS="1", BREAKER_MAX_PAUSE_SECONDS="2") as stack:
            healthy = stack.customers("w", [self._receiver.url(n + 1) for n in range(HEALTHY)])
            down = stack.customers("x", [self._url("busy", 0)])
            self._warm_up(stack, healthy)
            stack.load.burst("b", down, waiting)
            wait_until(lambda: stack.client.xlen("dispatcher:events") == 0, 120, "intake")
            wait_until(lambda: stack.logged("endpoint.paused") > 2, 60, "the breaker")
            self._receiver.take()
            self._receiver.behave("ok", port=KINDS.index("busy"))
            wait_until(lambda: self._receiver.count("b") > 0, 60, "a probe", every=0.002)
            began = time.monotonic()
            sent = stack.load.steady(
                100, self._seconds / 2, {"h": healthy, "f": down}, tell=self._progress.part
            )
            wait_until(lambda: self._receiver.count("f") >= sent["f"], 60, "the fresh ones")
            done = self._receiver.count("b")
            took = time.monotonic() - began
            self._receiver.behave("busy", port=KINDS.index("busy"))
            found = self._receiver.take()
        return done / took, phase(found["f"], sent["f"]), phase(found["h"], sent["h"])

    def backlog(self, waiting: int) -> tuple[float, Phase]:
        """One callback waits for each of many endpoints, as after an outage of ours: how many a second go out, and the
        latency of healthy endpoints' new callbacks meanwhile."""
        with running(workers=0) as stack:
            healthy = stack.customers("w", [self._receiver.url(n + 1) for n in range(HEALTHY)])
            urls = [self._receiver.url(10_000 + n) for n in range(waiting)]
            made = stack.customers("x", urls[:HEALTHY])
            many = [Customer(made[n % len(made)].workspace, url) for n, url in enumerate(urls)]
            fill(stack.server.url, "b", many, waiting, lambda _: None)
            stack.start()
            wait_until(lambda: self._receiver.count("b") > 0, 60, "the first callback", every=0.005)
            sent = stack.load.steady(RATE / 2, self._seconds, {"h": healthy}, tell=self._progress.part)
            wait_until(lambda: self._receiver.count("h") >= sent["h"], 60, "the healthy endpoints' callbacks")
            found = self._receiver.take()
        many_arrived = found["b"]
        rate = many_arrived.distinct / (many_arrived.last_at - many_arrived.first_at)
        return rate, phase(found["h"], sent["h"])

    def _warm_up(self, stack: Stack, customers: Sequence[Customer]) -> None:
        stack.load.steady(RATE / 2, 2, {"warm": customers})
        stack.drained()
        self._receiver.take()

    def _url(self, kind: str, number: int) -> str:
        place = 10_000 + number
        if kind == "refuse":
            return f"http://127.{place >> 16}.{place >> 8 & 255}.{place & 255}:9/hooks"
        if kind == "slow":
            return f"http://slow{number}.test:{self._receiver.port()}/hooks"
        return self._receiver.url(place, KINDS.index(kind))


def phase(arrived: Group, sent: int) -> Phase:
    """What the receiver saw of `sent` callbacks."""
    times = [us / 1000 for us in arrived.latencies_us]
    p50, p95, p99 = (percentile(times, share) for share in (0.5, 0.95, 0.99))
    return Phase(p50, p95, p99, sent - arrived.distinct)


def main(arguments: Sequence[str]) -> None:
    """Runs all phases and prints the tables; `--keep` puts them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.isolation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 6) if options.quick else (3, 15)
    burst, waiting = (20_000, 2_000) if options.quick else (200_000, 50_000)
    backlog = 20_000 if options.quick else 50_000
    progress = Progress(rounds * (len(BESIDE) + 3))
    phases: defaultdict[str, list[Phase]] = defaultdict(list)
    bursts, outages, backlogs = [], [], []
    with Receiver(*KINDS) as receiver, NameServer() as names:
        isolation = Isolation(receiver, names, seconds, progress)
        for _ in range(rounds):
            for kind, count, name in BESIDE:
                progress.start(name)
                phases[name].append(isolation.beside(kind, count))
            progress.start(f"a burst of {burst:,}")
            bursts.append(isolation.burst(burst))
            progress.start(f"an outage that left {waiting:,}")
            outages.append(isolation.outage(waiting))
            progress.start(f"one callback each for {backlog:,} endpoints")
            backlogs.append(isolation.backlog(backlog))
    progress.end()
    text = "\n\n".join(
        [
            f"{rounds} rounds on {machine()}; `make bench-isolation` repeats it. Median, and lowest to highest.",
            _beside(phases),
            _burst(bursts, burst),
            _outage(outages, waiting),
            _backlog(backlogs, backlog),
        ]
    )
    print(text)
    if options.keep:
        keep("isolation", text)


def _beside(phases: dict[str, list[Phase]]) -> str:
    base = phases[BESIDE[0][2]]
    rows = []
    for name, found in phases.items():
        ratios = [one.p99 / other.p99 for one, other in zip(found, base, strict=True)]
        times = [spread([getattr(one, share) for one in found]) for share in ("p50", "p95", "p99")]
        rows.append([name, *times, spread(ratios, 2), str(sum(one.lost for one in found))])
    head = [f"beside {HEALTHY} healthy endpoints", "p50 ms", "p95 ms", "p99 ms", "p99 ratio", "missing"]
    note = (
        f"{RATE} status changes a second, half of them to the healthy endpoints: from XADD to the POST's arrival there. "
        "The ratio is to the first line, in the same round."
    )
    return f"{note}\n\n{table(head, rows)}"


def _burst(found: Sequence[tuple[float, int]], count: int) -> str:
    waits, rates = [seconds for seconds, _ in found], [before / seconds for seconds, before in found]
    return (
        f"One workspace enqueues {count:,} at once to one endpoint; another's single change behind them arrives after "
        f"{spread(waits)} s, with {spread([before for _, before in found], 0)} entries before it: {spread(rates, 0)} a second."
    )


def _outage(found: Sequence[tuple[float, Phase, Phase]], waiting: int) -> str:
    head = [f"an endpoint comes back to {waiting:,} waiting", "p50 ms", "p95 ms", "p99 ms"]
    rows = [
        [name, *(spread([getattr(one[place], share) for one in found]) for share in ("p50", "p95", "p99"))]
        for place, name in ((1, "its fresh ones, 50 a second"), (2, "healthy neighbours, 50 a second"))
    ]
    rate = spread([one[0] for one in found], 0)
    return f"{table(head, rows)}\n\nIt took {rate} of those waiting a second, beside its fresh ones; the probe found it."


def _backlog(found: Sequence[tuple[float, Phase]], waiting: int) -> str:
    p50, p95, p99 = (spread([getattr(one, share) for _, one in found]) for share in ("p50", "p95", "p99"))
    return (
        f"One callback waits for each of {waiting:,} endpoints of {HEALTHY} workspaces: "
        f"{spread([rate for rate, _ in found], 0)} a second go out, "
        f"beside {RATE // 2} new ones a second to {HEALTHY} healthy endpoints, which arrive after {p50} ms "
        f"(p95 {p95}, p99 {p99}; {sum(one.lost for _, one in found)} missing)."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
