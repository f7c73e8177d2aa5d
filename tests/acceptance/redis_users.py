"""The Redis users of docs/operations.md, as its lines make them."""

import re
import shlex
from pathlib import Path

import redis

from tests.acceptance.stack import Stack

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
LINES = re.findall(r"^ACL SETUSER dispatcher-.*$", DOCUMENT, re.M)
PASSWORD = "a-password-of-the-test"


def make_users(client: "redis.Redis") -> None:
    """Makes them all."""
    for line in LINES:
        client.execute_command(*shlex.split(line.replace("PASSWORD", PASSWORD).replace(">", "'>'")))


def url_as(stack: Stack, role: str) -> str:
    """The stack's Redis, as the user of a role."""
    return stack.server.url.replace("unix://", f"unix://dispatcher-{role}:{PASSWORD}@")


def denied(client: "redis.Redis") -> set[tuple[str, str]]:
    """Who was refused what, by Redis's own log."""
    return {(entry["username"], entry["object"]) for entry in client.acl_log(128)}
