"""The command `dispatcher`, also as `python -m dispatcher`.

Its packages are called `tasks` and `config`, as other people's are. So an installed `dispatcher` keeps them
in its folder `_worker`, where nobody else finds them; the command's own processes find them first.
"""

import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__main__":  # run as a file: what is beside it must not hide the standard library's `secrets`
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != HERE]

INSTALLED = os.path.join(HERE, "_worker")
SOURCES = INSTALLED if os.path.isdir(INSTALLED) else os.path.dirname(HERE)
"""The folder that has `tasks` and `config`."""

COMMAND = (sys.executable, "-P", os.path.join(HERE, "__main__.py"))
"""Starts the command `dispatcher` in a process of its own, whatever is in the working directory."""

INTERRUPTED, USAGE = 130, 2

OF_MODULE = {"aiohttp": ("the receiver of `dispatcher listen` and `demo`", "listen")}
"""What needs a module that is not in the extra `worker`, and which extra has it."""


def main() -> None:
    """Runs the command line. One line says which extra is missing, or nothing after Ctrl-C."""
    sys.path.insert(0, SOURCES)
    try:
        importlib.import_module("tasks.cli").main()
    except ModuleNotFoundError as error:
        if not _of_an_extra(error.name):
            raise
        from dispatcher.extras import needed

        what, extra = OF_MODULE.get(error.name or "", ("the command `dispatcher`", "worker"))
        sys.stderr.write(f"error: {needed(what, extra)} (no module {error.name})\n")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _of_an_extra(module: str | None) -> bool:
    """Whether a module that is missing is some package's, and neither Python's nor ours."""
    top = (module or "").partition(".")[0]
    return bool(top) and top not in sys.stdlib_module_names and top not in ("dispatcher", "tasks", "config")


if __name__ == "__main__":
    main()
