"""A pgbouncer in front of PostgreSQL that gives each transaction a new connection."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.stack import wait_until

PORT = 6432
CONFIG = """
[databases]
postgres = host={server} user=postgres
[pgbouncer]
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
server_lifetime = 0
"""


@contextmanager
def pgbouncer(postgres_url: str) -> Iterator[str]:
    """The URL of a pgbouncer before the server with this one; skips the test where there is no pgbouncer."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.skip("there is no pgbouncer")
    server = str(conninfo_to_dict(postgres_url)["host"])
    user = os.stat(server).st_uid  # pgbouncer does not run as root, and others may not enter the folder
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        config = Path(folder) / "pgbouncer.ini"
        config.write_text(CONFIG.format(server=server, port=PORT, folder=folder))
        os.chown(folder, user, -1)
        os.chown(config, user, -1)
        with subprocess.Popen([program, "-q", str(config)], user=user) as process:
            try:
                wait_until((Path(folder) / f".s.PGSQL.{PORT}").exists, what="pgbouncer")
                yield f"postgresql://postgres@/postgres?host={folder}&port={PORT}"
            finally:
                process.terminate()
