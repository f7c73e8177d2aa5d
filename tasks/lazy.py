"""Lazy command groups of `dispatcher`: they hold a name and one line for each command, and load a command when it runs."""

import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from config.log_lines import guard_standard_error
from tasks import incomplete, interrupt, tables
from tasks.cli import ABOUT, COMMANDS, EXAMPLES, Entry

PLAIN = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Options of every typer.Typer: no boxes, no colours, and a plain traceback for a bug."""
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of `worker`, whose further options are Celery's."""
WITH_TABLES = ("list", "show", "check", "stats", "config")
"""Names of commands that print tables: those with --json also get --wide."""


class NotLoaded(TyperCommand):
    """Placeholder for a command or group that is not loaded yet."""

    entry: Entry


class Lazy(TyperGroup):
    """A group that loads only the command that runs; help and completion need names alone."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The first argument's command and the remaining arguments. Raises a usage error that suggests the nearest name."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except typer.TyperException as error:
            error.message += _hint(ctx, args[0], error.message)
            raise
        return name, loaded(command), rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands with the whole first paragraph of their help, which wraps on a narrow terminal."""
        for command in self.commands.values():
            command.short_help = " ".join((command.help or "").partition("\n\n")[0].split())
        super().format_commands(ctx, formatter)


class Root(Lazy):
    """`dispatcher` itself, whose help ends with examples."""

    def get_help(self, ctx: Any) -> str:
        """The help, also of `dispatcher` alone."""
        return f"{super().get_help(ctx)}\n{EXAMPLES}"


def run() -> int:
    """Runs the command that the arguments name; returns its exit code."""
    guard_standard_error()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  the process began with it closed
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # one that cannot show a character, as with LC_ALL=en_US.ISO-8859-1
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = root()(standalone_mode=False)
        sys.stdout.flush()
        code = _tell_what_is_missing(int(code or 0))
    except typer.TyperException as error:
        text = error.format_message()  # for a group without a command this is its help
        _complain(text if text.startswith("Usage:") else f"error: {text}")
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return interrupt.CODE
    except BrokenPipeError:  # the reader closed the pipe
        _write_no_more()
        return 0
    except Exception as error:
        if isinstance(error, OSError):
            _write_no_more()
        if isinstance(error, UnicodeEncodeError) and (what := _not_utf8()):
            _complain(f"error: {what}")
            return int(import_module("tasks.terminal").USAGE)
        return int(import_module("tasks.terminal").report(error))
    return int(code or 0)


def _not_utf8() -> str:
    """Which argument is not UTF-8; a file may have such a name, but nothing else."""
    for number, word in enumerate(sys.argv[1:], 1):
        if any("\ud800" <= one <= "\udfff" for one in word):
            return f"argument {number} is not UTF-8: {word!a}"
    return ""


def root() -> TyperGroup:
    """`dispatcher` itself."""
    app = typer.Typer(cls=Root, help=ABOUT, **PLAIN)  # type: ignore[arg-type]
    app.callback(invoke_without_command=True)(_start)
    group = get_command(app)
    group.context_settings["help_option_names"] = ["--help", "-h"]  # all other commands inherit it
    assert isinstance(group, TyperGroup)
    return _with_entries(group, "")


def commands() -> Iterator[tuple[str, Any]]:
    """Every command, loaded, with its full name, in alphabetical order: for documents and tests."""
    return _walk("", root())


def loaded(command: Any) -> Any:
    """Loads the command that a placeholder stands for; returns any other command unchanged."""
    if not isinstance(command, NotLoaded):
        return command
    entry = command.entry
    module, _, name = entry.where.partition(":")
    found = getattr(_imported(module), name) if module else typer.Typer(help=entry.help, no_args_is_help=True)
    if isinstance(found, typer.Typer):
        found.info.cls, found.rich_markup_mode = Lazy, None
        return _with_entries(get_group(found), entry.path)
    return _command(entry, found)


def _imported(module: str) -> Any:
    """Imports a module with garbage collection off, which takes a fifth less time; then freezes what it made."""
    sys.modules.setdefault("rich.traceback", None)  # type: ignore[arg-type]  # structlog imports it if it can; ours are plain
    gc.disable()
    try:
        return import_module(module)
    finally:
        gc.enable()
        gc.freeze()


def _command(entry: Entry, function: Any) -> Any:
    app = typer.Typer(add_completion=False, **PLAIN)  # type: ignore[arg-type]
    name = entry.path.rpartition(" ")[2]
    app.command(name, context_settings=PASSED_ON if name == "worker" else None)(function)
    return _with_checks(get_command(app))


def _with_checks(command: Any) -> Any:
    """Has a command refuse what is given as an empty text, unless its help says what empty means; adds --wide."""
    for one in command.params:
        if one.callback is None and "; empty: " not in (getattr(one, "help", "") or ""):
            one.callback = _not_empty
    return _with_wide(command)


def _not_empty(context: Any, parameter: Any, value: Any) -> Any:
    """Refuses an empty text on the command line, as of `--endpoint "$UNSET"`, which would be taken for "all of them"."""
    source = context.get_parameter_source(parameter.name)
    if (
        source
        and source.name == "COMMANDLINE"
        and (value == "" or (isinstance(value, list | tuple) and "" in value))
    ):
        raise typer.BadParameter("it is empty", ctx=context, param=parameter)
    return value


def _with_entries(group: TyperGroup, path: str) -> TyperGroup:
    """Adds placeholders for a group's commands in the table."""
    for command in group.commands.values():
        _with_checks(command)
    for entry in COMMANDS:
        before, _, name = entry.path.rpartition(" ")
        if before == path:
            group.commands[name] = command = NotLoaded(name, help=entry.help, rich_markup_mode=None)
            command.entry = entry
    return group


def _with_wide(command: Any) -> Any:
    """Adds --wide to a command that prints a table."""
    if command.name in WITH_TABLES and any("--json" in one.opts for one in command.params):
        app = typer.Typer(add_completion=False, **PLAIN)  # type: ignore[arg-type]
        app.command()(_wide)
        command.params += get_command(app).params
    return command


def _wide(
    wide: Annotated[
        bool,
        typer.Option("--wide", help=tables.WIDE_HELP, callback=tables.set_wide, expose_value=False),
    ] = False,
) -> None:
    """Declares the option that `_with_wide` adds."""


def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(import_module("dispatcher").__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _hint(ctx: Any, word: str, told: str) -> str:
    """What to type instead of an unknown command; empty if the error text `told` already suggests something."""
    if word == "help":
        path: list[str] = []
        while ctx.parent:
            path, ctx = [ctx.info_name, *path], ctx.parent
        return f" Help is `{' '.join(('dispatcher', *path, '--help'))}`."
    if "Did you mean" in told:
        return ""
    with suppress(ImportError):  # a command's extra may not be installed
        found = [f"`dispatcher {path}`" for path, _ in commands() if path.endswith(f" {word}")]
        return f" Did you mean {' or '.join(found)}?" if found else ""
    return ""


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name in sorted(inner):
        yield from _walk(f"{path} {name}".strip(), loaded(inner[name]))


def _complain(text: str) -> None:
    """Prints a text on standard error, wrapped to the terminal."""
    if sys.stderr.isatty() and not text.startswith("Usage:"):
        text = "\n".join(tables.wrapped(text, tables.terminal_width()))
    print(text, file=sys.stderr)  # noqa: T201  a usage error needs no console


def _tell_what_is_missing(code: int) -> int:
    """Prints what did not answer, after all else; returns the exit code, which is not 0 then."""
    for line in incomplete.told():
        _complain(line)
    return code or incomplete.code()


def _write_no_more() -> None:
    """Points standard output at /dev/null, or Python would try to flush its buffer at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
