"""`dispatcher history` beside a real worker: whose rows it exports, and where to."""

import json

import pytest
from aiohttp import web

from tests.acceptance.stack import CLI, Stack, wait_until
from tests.acceptance.terminal import Terminal
from tests.acceptance.test_archive import with_archive


@pytest.fixture
def archived(stack: Stack) -> Stack:
    """A stack whose archive has three callbacks of acme, which has no subscription of its own, and one of bluefin."""

    async def answer(_: web.Request, __: int) -> web.Response:
        return web.Response(status=410, text="gone")

    stack.answer = answer
    with_archive(stack, f"sqlite:///{stack.folder}/archive.db")
    stack.start_worker().wait_ready()
    url = stack.listen()
    for name in ("acme", "bluefin"):
        stack.add_workspace(name, "zeckta", f"{url}/hooks")
    stack.enqueue(3)
    stack.enqueue(1, workspace="bluefin")
    wait_until(lambda: 4 == len(stack.cli("history").stdout.splitlines()), what="an archive with all")
    return stack


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_unknown_names(archived: Stack, form: str) -> None:
    """A workspace or a subscription that there is not is one line and exit code 1, and nothing is exported; a name that has rows is none of these."""

    def refused(*filters: str) -> str:
        done = archived.cli("history", *filters, "--format", form)
        assert (1, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines())), done
        return done.stderr

    assert refused("--workspace", "acmee").startswith(
        "error: there is no workspace 'acmee'; did you mean acme?"
    )
    assert refused("--workspace", "acmee", "--message", "m1").startswith(
        "error: there is no workspace 'acmee'"
    )
    unknown = refused("--workspace", "acme", "--subscription", "crm")
    assert unknown.startswith("error: workspace 'acme' has no subscription 'crm'; it has default"), unknown

    head = 0 if form == "jsonl" else 1
    known = ("history", "--format", form, "--workspace", "acme")
    assert 3 + head == len(archived.cli(*known).stdout.splitlines())
    assert 3 + head == len(archived.cli(*known, "--subscription", "default").stdout.splitlines())
    none = archived.cli(*known, "--state", "delivered")
    assert (0, head) == (none.returncode, len(none.stdout.splitlines())), none


def test_a_removed_workspace(archived: Stack) -> None:
    """What the archive has of a workspace is exported after that was removed, and a filter that nothing matches is no error."""
    assert 0 == archived.cli("workspace", "remove", "bluefin").returncode
    done = archived.cli("history", "--workspace", "bluefin")
    assert (0, ["bluefin"]) == (
        done.returncode,
        [json.loads(one)["workspace"] for one in done.stdout.splitlines()],
    )
    assert "note: there is no workspace 'bluefin'" in done.stderr
    for filters in (("--state", "delivered"), ("--subscription", "crm")):
        none = archived.cli("history", "--workspace", "bluefin", *filters)
        assert (0, "") == (none.returncode, none.stdout), none


def test_a_removed_subscription(archived: Stack) -> None:
    """What the archive has of a subscription is exported after that was removed."""
    added = ("subscription", "add", "acme", "crm", "--callback-url", f"{archived.listen()}/crm")
    assert 0 == archived.cli(*added).returncode
    archived.enqueue(1, first=10)
    asked = ("history", "--workspace", "acme", "--subscription", "crm")
    wait_until(lambda: archived.cli(*asked).stdout, what="its callback in the archive")
    assert 0 == archived.cli("subscription", "remove", "acme", "crm").returncode
    done = archived.cli(*asked)
    assert (0, 1) == (done.returncode, len(done.stdout.splitlines())), done


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_on_a_terminal(archived: Stack, form: str) -> None:
    """On a terminal the rows are as in a file, and no progress is among them; only the number of rows follows."""
    rows = archived.cli("history", "--format", form).stdout.splitlines()
    terminal = Terminal(archived, "history", "--format", form)
    assert 0 == terminal.wait()
    assert [*rows, "note: 4 callbacks"] == terminal.text.splitlines()
    assert not terminal.has_escapes


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_from_a_terminal_to_a_file(archived: Stack, form: str) -> None:
    """With `> FILE` on a terminal the file has the rows, and the terminal the progress and none of them."""
    path = archived.folder / "exported"
    to_file = ("sh", "-c", f'exec "$@" > {path}', "sh", *CLI)
    terminal = Terminal(archived, "history", "--format", form, command=to_file)
    assert 0 == terminal.wait()
    assert archived.cli("history", "--format", form).stdout == path.read_text()
    assert (True, False) == ("exporting" in terminal.text, "acme" in terminal.text), terminal.text
