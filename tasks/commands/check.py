"""`dispatcher check`: would this installation lose data, and with --live, are callbacks being sent?"""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from dispatcher.errors import visible
from dispatcher.store.check_finding import Finding, Verdict
from tasks import tables, terminal
from tasks.actions.check import look

ARROW = len("-> ")


def check(
    live: Annotated[
        bool, typer.Option("--live", help="Prove that workers take hints and that intake runs.")
    ] = False,
    here: Annotated[
        bool, typer.Option("--here", help="With --live: a worker of this host must be alive.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check for what would lose data, or with --live for what stops callbacks.

    The exit code is 1 if something would, or if no worker is alive; warnings do not count.
    """
    settings = terminal.settings()
    if here and not live:
        terminal.fail("--here goes with --live", terminal.USAGE)
    findings = terminal.run(_live().look_live(settings, here) if live else look(settings))
    if as_json:
        terminal.print_json(
            [
                {"subject": f.subject, "verdict": f.verdict, "detail": f.detail, "advice": f.advice}
                for f in findings
            ]
        )
    else:
        _print(findings)
    if any(f.verdict is Verdict.BAD for f in findings):
        raise typer.Exit(terminal.NO)


def _print(findings: Sequence[Finding]) -> None:
    """Prints a table; on a terminal, each finding next to its subject and the advice below it."""
    width = terminal.columns_of_terminal()
    if width is None or tables.is_wide():
        rows = [(f.subject, f.verdict, f.detail, f.advice) for f in findings]
        terminal.print_table(("subject", "verdict", "found", "what to do"), rows, "")
        return
    beside = max(len(f.subject) for f in findings) + 2
    for f in findings:
        style = {Verdict.BAD: "bold red", Verdict.WARNING: "yellow"}.get(f.verdict, "")
        first = f"{f.subject:<{beside}}{f.verdict:<9}"
        indent, detail, advice = " " * len(first), visible(f.detail), visible(f.advice)
        if len(first) + ARROW + max(map(tables.width_of, f"{detail} {advice}".split())) > width:
            terminal.print_line(first.rstrip(), style)
            first = indent = tables.INDENT  # or a long URL would make the line longer than it is
        for line in tables.wrapped(detail, width, first, indent):
            terminal.print_line(line, style)
        if advice:
            for line in tables.wrapped(f"-> {advice}", width, indent, indent + " " * ARROW):
                terminal.print_line(line)


def _live() -> Any:
    """Loads what only --live needs: importing Celery takes longer than the check without it."""
    return import_module("tasks.actions.check_live")
