"""`dispatcher workspace api-key`, `producer-key` and `console-key`: keys of customers, of backends, and of operators."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dispatcher.model import iso
from dispatcher.rules.dialects import platform_of
from dispatcher.store.api_keys import OPERATORS, PRODUCERS, ApiKey
from dispatcher.store.producer_keys import KEPT_SECONDS
from dispatcher.store.sessions import Sessions
from tasks import terminal, wiring
from tasks.actions.partly import Partly

of_workspaces = typer.Typer(help="API keys of a workspace, for its customer's queries.", no_args_is_help=True)
of_producers = typer.Typer(help="API keys of backends, for POST /v1/status-changes.", no_args_is_help=True)

of_operators = typer.Typer(help="Keys that log operators in to the console.", no_args_is_help=True)
ROLES = "viewer", "operator", "admin"
"""What a console key may be for, as `tasks/console/access.py` has them."""


def _of_workspace(workspace: str) -> str:
    """Refuses the name that stands for all workspaces in Redis: its keys are those of backends."""
    if workspace in (PRODUCERS, OPERATORS):
        terminal.fail(
            f"there is no workspace {workspace!r}; `dispatcher producer-key` is for backends' keys, `console-key` for operators'"
        )
    return workspace


Id = Annotated[
    str,
    typer.Argument(help="The workspace's name.", metavar="ID", show_default=False, callback=_of_workspace),
]
KeyId = Annotated[str, typer.Argument(help="The key's id (key_…).", metavar="KEY", show_default=False)]
Rate = Annotated[
    int | None,
    typer.Option(
        help="Calls a second it may make (default: DISPATCHER_API_RATE_PER_SECOND).", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@of_workspaces.command("add")
def add(
    workspace: Id,
    name: Annotated[str, typer.Option(help="What it is for.")] = "default",
    rate_per_second: Rate = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may only query, not change the webhook (Qlara).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create a key for a workspace; it is shown only now."""
    _add(workspace, name, rate_per_second, as_json, read_only=read_only)


@of_workspaces.command("list")
def list_(workspace: Id, as_json: Json = False) -> None:
    """List a workspace's keys, never their secrets."""
    _list(workspace, as_json, f"no API keys yet; `dispatcher workspace api-key add {workspace}` makes one")


@of_workspaces.command("revoke")
def revoke(workspace: Id, key: KeyId) -> None:
    """Revoke a key: its next call is refused."""
    _revoke(workspace, key)


@of_producers.command("add")
def add_producer(
    name: Annotated[str, typer.Argument(help="Which backend it is for.", metavar="NAME", show_default=False)],
    rate_per_second: Rate = None,
    as_json: Json = False,
) -> None:
    """Create a key that lets a backend enqueue for any workspace; it is shown only now."""
    _add(PRODUCERS, name, rate_per_second, as_json)


@of_producers.command("list")
def list_producers(as_json: Json = False) -> None:
    """List backends' keys, never their secrets."""
    _list(PRODUCERS, as_json, "no producer keys yet; `dispatcher producer-key add NAME` makes one")


@of_producers.command("revoke")
def revoke_producer(key: KeyId) -> None:
    """Revoke a backend's key: its calls are refused after at most 5 seconds."""
    _revoke(PRODUCERS, key)


@of_operators.command("add")
def add_operator(
    name: Annotated[str, typer.Argument(help="Whose it is.", metavar="NAME", show_default=False)],
    role: Annotated[
        str, typer.Option(help="viewer (sees, masked), operator (acts) or admin (secrets, sessions).")
    ] = "viewer",
    as_json: Json = False,
) -> None:
    """Create a key that logs an operator in to the console; it is shown only now."""
    terminal.require_one_of("--role", role, ROLES)
    _add(OPERATORS, name, None, as_json, platform=f"console:{role}")


@of_operators.command("list")
def list_operators(as_json: Json = False) -> None:
    """List operators' keys, never their secrets."""
    _list(OPERATORS, as_json, "no console keys yet; `dispatcher console-key add NAME` makes one")


@of_operators.command("revoke")
def revoke_operator(key: KeyId) -> None:
    """Revoke an operator's key, and end the sessions it began."""
    _revoke(OPERATORS, key)


def _add(
    workspace: str,
    name: str,
    rate: int | None,
    as_json: bool,
    *,
    read_only: bool = False,
    platform: str = PRODUCERS,
) -> None:
    settings = terminal.settings()

    async def work() -> tuple[ApiKey, str]:
        async with wiring.store(settings, keep=True) as store:
            of = platform
            if workspace not in (PRODUCERS, OPERATORS):
                of = platform_of((await store.workspaces.require(workspace)).dialect)
            key, text = await store.api_keys.add(
                workspace,
                of,
                name,
                now_ms=await store.installation.now_ms(),
                rate_per_second=settings.api_rate_per_second if rate is None else rate,
                read_only=read_only,
            )
            await store.audit.add(*_audited("add", workspace), after=_document(key))
            return key, text

    key, text = terminal.run(work())
    user, _, password = text.partition(".")
    basic = {"user": user, "password": password} if key.platform == "sendexa" else {}
    revoke = f"`dispatcher {_command(workspace)} {key.id}` revokes it, then add another"
    with terminal.only_now(f"API key {key.id} is made", revoke):
        if as_json:
            terminal.print_json(_document(key) | {"apiKey": text} | basic)
            return
        terminal.out.print(f"API key {key.id} is made, shown only now:\n{text}", markup=False)
        if basic:
            terminal.out.print(f"as a Basic credential: {user}:{password}", markup=False)


def _command(workspace: str) -> str:
    """The command that revokes a key, without the key."""
    if workspace == OPERATORS:
        return "console-key revoke"
    return "producer-key revoke" if workspace == PRODUCERS else f"workspace api-key revoke {workspace}"


def _list(workspace: str, as_json: bool, empty: str) -> None:
    settings = terminal.settings()

    async def work() -> tuple[Sequence[ApiKey], Counter[str]]:
        async with wiring.store(settings) as store:
            if workspace not in (PRODUCERS, OPERATORS):
                await store.workspaces.require(workspace)
            found = await store.api_keys.list(workspace)
            refused: Counter[str] = Counter()
            for (_, key), count in (await store.refusals.last(await store.installation.now_ms(), 24)).items():
                refused[key] += count
            return found, refused

    found, refused = terminal.run(work())
    if as_json:
        terminal.print_json([_document(key) | {"refusedIn24Hours": refused[key.id]} for key in found])
        return
    rows = [
        (key.id, key.name, _may(key), key.rate_per_second, refused[key.id], iso(key.created_ms))
        for key in found
    ]
    columns = ("key", "name", "may", "calls a second", "refused in 24 h", "created")
    terminal.print_table(columns, rows, empty)


def _revoke(workspace: str, key: str) -> None:
    settings = terminal.settings()

    async def work() -> None:
        async with wiring.store(settings) as store:
            id_ = key.partition(".")[0]
            known = [_document(one) for one in await store.api_keys.list(workspace) if one.id == id_]

            async def end_sessions() -> None:
                if workspace == OPERATORS:
                    place = wiring.first_place(settings, store)
                    sessions = Sessions(place.client.execute_command, place.keys, place.url)
                    await sessions.end_all(f"key:{id_}", await store.installation.now_ms())

            await end_sessions()  # before the key goes: what fails here can be run again
            partly = Partly()
            await partly.of(store.api_keys.revoke(workspace, id_))
            await end_sessions()  # somebody may have logged in meanwhile
            await store.audit.add(*_audited("revoke", workspace), before=known[0] if known else {"key": id_})
            partly.raise_problem()

    terminal.run(work())
    when = f"; it may enqueue for {KEPT_SECONDS:g} s more" if workspace == PRODUCERS else ""
    terminal.out.print(f"API key {key.partition('.')[0]} is revoked{when}", markup=False)


def _audited(what: str, workspace: str) -> tuple[str, str]:
    """The name of the change in the audit trail, and the workspace it is about."""
    if workspace == OPERATORS:
        return f"console_key.{what}", ""
    return (f"producer_key.{what}", "") if workspace == PRODUCERS else (f"api_key.{what}", workspace)


def _may(key: ApiKey) -> str:
    if key.workspace == PRODUCERS:
        return "enqueue"
    if key.workspace == OPERATORS:
        return key.platform.partition(":")[2]
    return "ask, change the webhook" if key.platform == "qlara" and not key.read_only else "ask"


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "key": key.id,
        **({"role": _may(key)} if key.workspace == OPERATORS else {}),
        "workspace": None if key.workspace in (PRODUCERS, OPERATORS) else key.workspace,
        "name": key.name,
        "ratePerSecond": key.rate_per_second,
        "readOnly": key.read_only,
        "createdAt": iso(key.created_ms),
    }
