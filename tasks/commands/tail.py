"""`dispatcher tail`: prints the attempts of all workers live."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Any, cast

import typer

from config.settings import Settings
from dispatcher.errors import NotFound, visible
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.format import require_format
from tasks import tables, terminal, watching, wiring
from tasks.actions import endpoints

WAIT_SECONDS = 3.0
"""After so long it is said that some worker does not publish yet: they send heartbeats each second."""


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

    Workers publish their attempts only while a `tail` runs: it says when all of them do, a second or two after its start.

    Examples:

      dispatcher tail --failed

      dispatcher tail --workspace acme --json
    """
    settings = terminal.settings()
    if endpoint:
        endpoint = parse_callback_url(endpoint, allow_http=True).origin
    filters = {"workspace": workspace, "endpoint": endpoint, "messageId": message}
    wanted = {name: value for name, value in filters.items() if value is not None}
    terminal.run(_tail(settings, wanted, failed, as_json))


async def _tail(settings: Settings, wanted: dict[str, str], failed: bool, as_json: bool) -> None:
    async with wiring.store(settings) as store:
        if "workspace" in wanted:
            await store.workspaces.require(wanted["workspace"])
        if "endpoint" in wanted:
            terminal.note(await _unknown_endpoint(store, wanted.get("workspace"), wanted["endpoint"]))
        async with aclosing(watching.watch(settings, store)) as found:
            await _follow(found, store, lambda attempt: _show(attempt, wanted, failed, as_json))


async def _follow(
    found: AsyncIterator[watching.Heard], store: wiring.Store, show: Callable[[dict[str, Any]], None]
) -> None:
    """Shows attempts as workers publish them.

    Raises OtherFormat once this Redis is not the whole installation any more: attempts are published elsewhere then.
    """
    was_live, has_waited, began, look_at = False, False, time.monotonic(), 0.0
    noted = ""
    async for heard in found:
        now = time.monotonic()
        if store.partitions == 1 and now >= look_at:
            require_format(await store.installation.format(), archives=store.archive is not None)
            look_at = now + 1
        if heard.is_live and not was_live:
            terminal.err.print("watching attempts; Ctrl-C ends it")
        elif was_live and not heard.is_live:
            terminal.err.print("this command was held up: attempts of that time are missing")
            began, has_waited = now, False
        elif not has_waited and not heard.is_live and now - began > WAIT_SECONDS:
            terminal.err.print("waiting until all workers publish their attempts (`dispatcher check`)")
            has_waited = True
        was_live = heard.is_live
        if (
            heard.problem and heard.problem != noted
        ):  # each once in a row: anybody can publish as much as they like
            terminal.note(f"something else than attempts was published, and is left out: {heard.problem}")
            noted = heard.problem
        for attempt in heard.attempts:
            show(cast("dict[str, Any]", attempt))


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


def _show(attempt: dict[str, Any], wanted: dict[str, str], failed: bool, as_json: bool) -> None:
    if any(attempt[name] != value for name, value in wanted.items()):
        return
    if failed and attempt["outcome"] == "delivered":
        return
    if as_json:
        print(json.dumps(attempt), flush=True)  # noqa: T201  one line, for programs
        return
    style = "" if attempt["outcome"] == "delivered" else "yellow"
    for line in _lines(attempt, terminal.columns_of_terminal()):
        terminal.print_line(visible(line), style)


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
