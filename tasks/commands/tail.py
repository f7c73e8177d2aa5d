"""`dispatcher tail`: prints the attempts of all workers live."""

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.errors import NotFound, visible
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.connection import translated
from dispatcher.store.format import require_format
from dispatcher.store.keys import keys_of
from dispatcher.worker.tail import WATCH_SECONDS
from tasks import console, tables, wiring
from tasks.actions import endpoints


def tail(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="To this endpoint only (its URL).", show_default=False)
    ] = None,
    message: Annotated[
        str | None, typer.Option(help="Of this message (its uuid) only.", show_default=False)
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were not delivered.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for each attempt.")] = False,
) -> None:
    """Watch the attempts of all workers live, until Ctrl-C.

    Workers publish their attempts only while a `tail` runs.

    Examples:

      dispatcher tail --failed

      dispatcher tail --workspace acme --json
    """
    settings = console.settings()
    if endpoint:
        endpoint = parse_callback_url(endpoint, allow_http=True).origin
    filters = {"workspace": workspace, "endpoint": endpoint, "messageId": message}
    wanted = {name: value for name, value in filters.items() if value is not None}
    console.run(_tail(settings, wanted, failed, as_json))


async def _tail(settings: Settings, wanted: dict[str, str], failed: bool, as_json: bool) -> None:
    async with wiring.store(settings) as store:
        if "workspace" in wanted:
            await store.workspaces.require(wanted["workspace"])
        if "endpoint" in wanted:
            console.note(await _unknown_endpoint(store, wanted.get("workspace"), wanted["endpoint"]))
        key = keys_of(settings.key_prefix, settings.partitions)[0].tail  # there all workers look, and publish
        async for attempt in _watched(store, key, wiring.redis_url(settings)):
            _show(attempt, wanted, failed, as_json)


async def _unknown_endpoint(store: wiring.Store, workspace: str | None, origin: str) -> str:
    """That no such endpoint is known yet, or empty: one that is to come can be watched for."""
    if workspace is None:
        known = any(one.url == origin for one in await store.endpoints.all())
        return "" if known else f"no workspace has an endpoint {origin} yet (`dispatcher endpoint list`)"
    try:
        await endpoints.one(store, workspace, origin)
    except NotFound as error:
        return str(error)
    return ""


async def _watched(store: wiring.Store, key: str, url: str) -> AsyncIterator[dict[str, Any]]:
    """Yields attempts as workers publish them; renews the key that tells workers to publish.

    Raises OtherFormat once this Redis is not the whole installation any more: attempts are published elsewhere then.
    """
    client: Any = store.client
    with translated(url):
        async with client.pubsub() as channel:
            await channel.subscribe(key)
            renew_at = 0.0
            while True:
                if time.monotonic() >= renew_at:
                    await client.set(key, 1, ex=WATCH_SECONDS)
                    if store.partitions == 1:
                        require_format(await store.installation.format(), archives=store.archive is not None)
                    if not renew_at:
                        console.err.print("watching attempts; Ctrl-C ends it")
                    renew_at = time.monotonic() + 1
                said = await channel.get_message(ignore_subscribe_messages=True, timeout=1.0)
                for attempt in json.loads(said["data"]) if said else ():
                    yield attempt


def _show(attempt: dict[str, Any], wanted: dict[str, str], failed: bool, as_json: bool) -> None:
    if any(attempt[name] != value for name, value in wanted.items()):
        return
    if failed and attempt["outcome"] == "delivered":
        return
    if as_json:
        print(json.dumps(attempt), flush=True)  # noqa: T201  one line, for programs
        return
    style = "" if attempt["outcome"] == "delivered" else "yellow"
    for line in _lines(attempt, console.columns_of_terminal()):
        console.print_line(visible(line), style)


def _owner(attempt: dict[str, Any]) -> str:
    """Whose attempt it is, as `endpoint list` has it: `acme`, or `acme.crm`; earlier versions do not say which subscription's."""
    of = attempt.get("subscription", DEFAULT)
    return EndpointName(attempt["workspace"], "", "" if of == DEFAULT else of).owner


def _lines(attempt: dict[str, Any], width: int | None) -> list[str]:
    """An attempt as one line, or as several if the terminal is too narrow."""
    said = f"{attempt['httpStatus'] or attempt['error']!s:<15} {attempt['durationMs']:>6} ms"
    owner = _owner(attempt)
    at, outcome, event = attempt["at"][11:], f"{attempt['outcome']:<9}", attempt["eventId"]
    line = (
        f"{at}  {owner:<12} {attempt['endpoint']:<40} {attempt['eventType']:<20} "
        f"{attempt['attempt']}  {said}  {outcome} {event}"
    )
    if width is None or tables.width_of(line) <= width:
        return [line]
    about = f"{owner}  {attempt['eventType']}  attempt {attempt['attempt']}"
    return [
        f"{at}  {said}  {outcome.rstrip()}",
        *tables.wrapped(f"{about}  {attempt['endpoint']}  {event}", width, "    ", "    "),
    ]
