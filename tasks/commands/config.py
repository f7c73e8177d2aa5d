"""`dispatcher config`: shows the settings in force."""

from typing import Annotated

import typer

from config.settings import sources
from config.settings_docs import rows
from tasks import tables, terminal


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the settings in force; secrets are hidden.

    `from` says where a value was set: in the environment, which has precedence, or in .env in this folder.
    The last line, or `topology` in JSON, says which Redis servers there are and how they are found.
    """
    settings = terminal.settings()
    shown = settings.shown()
    topology = (
        f"{settings.topology.described}; {tables.counted(settings.partitions, 'partition', 'partitions')}"
    )
    if settings.previous_redis_url:
        topology += "; grown from one Redis, which is partition " + str(settings.partitions)
    if as_json:
        terminal.print_json(shown | {"topology": topology})
        return
    where = sources()
    table = [(name, _text(shown[name]), where.get(name, "default"), meaning) for name, _, meaning in rows()]
    terminal.print_table(("setting", "value", "from", "meaning"), table, "")
    terminal.print_text(f"topology: {topology}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
