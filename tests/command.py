"""Runs a command of `dispatcher` in a process of its own: one that runs in the tests' process sets its logs up for all others."""

import os
import subprocess

from tests import warm


def command(redis_url: str, *args: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """The command as it ended; `settings` are without DISPATCHER_."""
    given = {f"DISPATCHER_{name}": value for name, value in {"REDIS_URL": redis_url, **settings}.items()}
    return warm.run(args, os.environ | given)
