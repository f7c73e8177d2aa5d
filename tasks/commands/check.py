"""`dispatcher check`: would this installation lose data, and does it consume?"""

import asyncio
import secrets
import socket
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from kombu.connection import Connection

from config import broker
from config.settings import NEW_FERNET_KEY, Settings
from dispatcher.errors import InvalidInput, visible
from dispatcher.store.checks import Finding, Verdict, encryption, look_at_redis
from dispatcher.store.holds import problems
from dispatcher.store.lookup import Endpoint, Lookup
from tasks import console, tables, wiring

LIVE_SECONDS = 10.0
CONNECT_SECONDS = 4.0
"""As Celery's own."""
SIGN_SECONDS = 3.0
"""How long a worker that gave a sign of life before is waited for: signs come every second."""
LOOK = "look at the workers' logs"


def check(
    live: Annotated[
        bool, typer.Option("--live", help="Prove that workers take hints and that intake runs.")
    ] = False,
    here: Annotated[
        bool, typer.Option("--here", help="With --live: a worker of this host must be alive.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for what loses data, or (--live) for what stops callbacks.

    The exit code is 1 if something does, and where no worker is alive.
    """
    settings = console.settings()
    if here and not live:
        console.fail("--here goes with --live", console.USAGE)
    findings = console.run(_look_live(settings, here) if live else _look(settings))
    if as_json:
        console.print_json(
            [
                {"subject": f.subject, "verdict": f.verdict, "detail": f.detail, "advice": f.advice}
                for f in findings
            ]
        )
    else:
        _print(findings)
    if any(f.verdict is Verdict.BAD for f in findings):
        raise typer.Exit(console.NO)


def _print(findings: Sequence[Finding]) -> None:
    """On a terminal what was found is beside its subject, and what to do below it."""
    width = console.columns_of_terminal()
    if width is None or tables.is_wide():
        rows = [(f.subject, f.verdict, f.detail, f.advice) for f in findings]
        console.print_table(("subject", "verdict", "found", "what to do"), rows, "")
        return
    beside = max(len(f.subject) for f in findings) + 2
    for f in findings:
        style = {Verdict.BAD: "bold red", Verdict.WARNING: "yellow"}.get(f.verdict, "")
        first = f"{f.subject:<{beside}}{f.verdict:<9}"
        indent = " " * len(first)
        for line in tables.wrapped(visible(f.detail), width, first, indent):
            console.print_line(line, style)
        if f.advice:
            for line in tables.wrapped(f"-> {visible(f.advice)}", width, indent, f"{indent}   "):
                console.print_line(line)


async def _look(settings: Settings) -> list[Finding]:
    async with wiring.store(settings) as store:
        found = await look_at_redis(store.client, wiring.redis_url(settings))
        queued, pending = await store.lookup.waiting()
        waiting = Finding("waiting", Verdict.OK, f"{queued:,} on the queue, {pending:,} callbacks accepted")
        endpoints = _endpoints(await store.lookup.endpoints())
        workers = _workers(await store.lookup.workers())
        celery = await asyncio.to_thread(_broker, settings)
        damage = _damage(await store.stats.day(await store.lookup.now_ms()))
        return [
            *found,
            *celery,
            _secrets(settings),
            *contradictions(settings),
            damage,
            workers,
            endpoints,
            waiting,
        ]


def _broker(settings: Settings) -> list[Finding]:
    """Whether Celery's broker takes messages, and how Celery's own connection to it is encrypted."""
    try:
        url, tls, others = broker.of(settings.celery_url, settings.redis_ca_file)
    except InvalidInput as error:
        return [Finding("celery", Verdict.BAD, str(error), "set DISPATCHER_BROKER_URL")]
    options = broker.transport_options(settings.key_prefix, others)
    connecting: Any = Connection(url, ssl=tls, transport_options=options, connect_timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]  # kombu ships no types
    with connecting as connection:
        encrypted = _celery_encryption(connection)
        try:
            connection.ensure_connection(max_retries=1, timeout=LIVE_SECONDS)
        except Exception as error:
            if "MISCONF" in str(error):
                detail, advice = (
                    "the broker refuses writes: it cannot write its files",
                    "make room on its disk",
                )
                return [Finding("celery", Verdict.BAD, detail, advice), encrypted]
            detail = f"the broker is not reachable: {broker.problem(error, url)}"
            return [Finding("celery", Verdict.BAD, detail, "look at BROKER_URL"), encrypted]
    return [Finding("celery", Verdict.OK, "the broker is reachable"), encrypted]


def _celery_encryption(connection: Any) -> Finding:
    """By what kombu really uses, whatever the settings say."""
    subject, scheme = "celery encryption", str(connection.transport_cls)
    if scheme in ("redis", "rediss", "amqp", "pyamqp") and not (connection.ssl and "amqp" in scheme):
        host = connection.hostname or ""
        return encryption(subject, "" if host.startswith("socket://") else host, connection.ssl or {})
    if scheme == "amqps":
        detail = "TLS, certificate verified, but not its name: so does Celery with amqps://"
        return Finding(
            subject, Verdict.WARNING, detail, "let nobody come between, or use Redis for the broker"
        )
    return Finding(
        subject, Verdict.UNKNOWN, f"{scheme}: by that transport's own rules", "see Celery's manual"
    )


def contradictions(settings: Settings) -> list[Finding]:
    """Settings that are allowed one by one, and together do what nobody wants. Pure."""
    policy = wiring.policy(settings)
    waits = [policy.backoff.delay_ms(number, 0.5) / 1000 for number in range(1, policy.max_attempts)]
    told = []
    if sum(waits) > settings.expiry_seconds:
        made = next(n for n in range(len(waits)) if sum(waits[: n + 1]) > settings.expiry_seconds)
        told.append(
            f"attempt {made + 2} of {policy.max_attempts} would come after the expiry: raise EXPIRY_SECONDS or lower "
            "BACKOFF_FACTOR"
        )
    if settings.max_concurrency > settings.max_in_flight:
        told.append("MAX_CONCURRENCY of one endpoint is above MAX_IN_FLIGHT of a whole worker")
    if settings.delivered_body_seconds > settings.ledger_retention_seconds:
        told.append(
            "DELIVERED_BODY_SECONDS is above LEDGER_RETENTION_SECONDS: bodies outlive what they belong to"
        )
    if settings.alert_secret and not settings.alert_url:
        told.append("ALERT_SECRET is set and ALERT_URL is not: nothing is sent")
    if not told:
        return [Finding("settings", Verdict.OK, "none contradicts another")]
    return [Finding("settings", Verdict.WARNING, text, "dispatcher config shows all") for text in told]


def _damage(day: Counter[str]) -> Finding:
    """What the sweep has mended lately."""
    put_back, aside = day["putBack"], day["setAside"]
    if not put_back and not aside:
        return Finding("damage", Verdict.OK, "nothing had to be mended in the last 24 h")
    found = f"in the last 24 h {put_back:,} callbacks were pending and nowhere, {aside:,} keys were of a wrong type"
    return Finding("damage", Verdict.WARNING, f"{found}; they were mended", "who else writes to this Redis?")


def _secrets(settings: Settings) -> Finding:
    if settings.secret_keys:
        return Finding("secrets", Verdict.OK, "encrypted in Redis")
    advice = f"set DISPATCHER_SECRET_KEYS; `{NEW_FERNET_KEY}` makes a key"
    return Finding("secrets", Verdict.WARNING, "readable in Redis", advice)


def _endpoints(endpoints: Sequence[Endpoint]) -> Finding:
    """Which customers' endpoints are down: no fault of this installation."""
    found = problems(endpoints)
    stopped = sum(e.state == "stopped" for e in endpoints)
    told = [f"{count:,} {what}" for what, count in found.items()] + [f"{stopped:,} stopped"] * bool(stopped)
    if not told:
        return Finding("endpoints", Verdict.OK, f"nothing is wrong with any of {len(endpoints):,}")
    detail = f"of {len(endpoints):,}: {', '.join(told)}"
    return Finding("endpoints", Verdict.WARNING, detail, "dispatcher endpoint list")


def _workers(workers: dict[str, Any]) -> Finding:
    if workers:
        return Finding("workers", Verdict.OK, f"{len(workers)} alive: {', '.join(workers)}")
    return Finding(
        "workers",
        Verdict.BAD,
        "none gives a sign of life: no callback is sent",
        "start one: dispatcher worker",
    )


async def _look_live(settings: Settings, here: bool) -> list[Finding]:
    probe = secrets.token_hex(8)
    async with wiring.store(settings) as store:
        since_ms = await store.lookup.now_ms()  # says in one line if Redis is away
        publish = import_module("tasks.probe").publish_probe  # Celery, which only --live needs
        await asyncio.to_thread(publish, settings, probe)
        workers = await _signs_since(store.lookup, since_ms, probe)
    who, leader = _answered(workers, probe), _leader(workers)
    asked = (
        {name: sign for name, sign in workers.items() if f"@{socket.gethostname()}/" in name}
        if here
        else workers
    )
    return [
        _workers(asked),
        Finding("hints", Verdict.OK, f"a hint came through Celery to {who}")
        if who
        else Finding("hints", Verdict.BAD, f"no worker took a hint within {LIVE_SECONDS:g} s", LOOK),
        Finding("intake", Verdict.OK, f"led by {leader}")
        if leader
        else Finding("intake", Verdict.BAD, "no worker leads intake: the queue is not read", LOOK),
    ]


async def _signs_since(lookup: Lookup, since_ms: int, probe: str) -> dict[str, Any]:
    """The signs of life that were given since then: what a worker said before says nothing of now."""
    began = time.monotonic()
    while True:
        known = await lookup.workers()
        given = {name: sign for name, sign in known.items() if sign["signedMs"] >= since_ms}
        waited = time.monotonic() - began
        whole = len(given) == len(known) or waited > SIGN_SECONDS
        if (whole and _answered(given, probe) and _leader(given)) or waited > LIVE_SECONDS:
            return given
        await asyncio.sleep(0.1)


def _answered(workers: dict[str, Any], probe: str) -> str | None:
    return next((name for name, sign in workers.items() if probe in sign["probes"]), None)


def _leader(workers: dict[str, Any]) -> str | None:
    return next((name for name, sign in workers.items() if sign["leadsIntake"]), None)
