"""The command `dispatcher`, also as `python -m dispatcher`.

The command lives in the packages `tasks` and `config`, names that other projects use too. So an installed
`dispatcher` keeps them in its folder `_worker`, and only the command's own processes put that on their path.
"""

import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__main__":  # run as a file: modules next to it must not shadow the standard library
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != HERE]

INSTALLED = os.path.join(HERE, "_worker")
SOURCES = INSTALLED if os.path.isdir(INSTALLED) else os.path.dirname(HERE)
"""The folder that contains `tasks` and `config`."""

COMMAND = (sys.executable, "-P", os.path.join(HERE, "__main__.py"))
"""Starts the command `dispatcher` in a new process, safe against modules in the working directory."""

INTERRUPTED, USAGE = 130, 2

OF_COMMAND = {name: (f"`dispatcher {name}`", name) for name in ("demo", "listen", "api", "console")}
"""What needs more than the extra `worker`, and which extra has all of it."""


def main() -> None:
    """Runs the command line. A missing extra is one line; Ctrl-C prints nothing."""
    sys.path.insert(0, SOURCES)
    try:
        importlib.import_module("tasks.__main__").main()
    except ModuleNotFoundError as error:
        if not _of_an_extra(error.name):
            raise
        from dispatcher.errors import extra_needed

        named = sys.argv[1] if len(sys.argv) > 1 else ""
        what, extra = OF_COMMAND.get(named, ("the command `dispatcher`", "worker"))
        sys.stderr.write(f"error: {extra_needed(what, extra)} (no module {error.name})\n")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _of_an_extra(module: str | None) -> bool:
    """Whether a missing module belongs to a third-party package, not to Python or to us."""
    top = (module or "").partition(".")[0]
    return bool(top) and top not in sys.stdlib_module_names and top not in ("dispatcher", "tasks", "config")


if __name__ == "__main__":
    main()
