"""The command `dispatcher`, also as `python -m tasks`."""

import sys
from importlib import import_module

from tasks import interrupt


def main() -> None:
    """Runs a command; an error becomes one line and an exit code. Ctrl-C prints no traceback, not even during imports."""
    interrupt.end_at_once()
    sys.exit(import_module("tasks.lazy").run())


if __name__ == "__main__":
    main()
