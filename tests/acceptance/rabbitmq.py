"""A RabbitMQ server of this machine's packages, as a process that tests start and kill."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Self

from tests.acceptance.stack import free_port, wait_until

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Where Debian's package has it; the one on the PATH wants to be run as a user of its own."""
PASSWORD = "hush%2Fhush"
START_SECONDS = 60


class RabbitMq:
    """Use in `with`."""

    def __init__(self, folder: Path, chain: Path | None = None) -> None:
        """`chain`: key and certificate (PEM); with it, it speaks TLS only."""
        self._folder = folder
        self._folder.mkdir()
        self.port = free_port()
        self.url = f"amqp{'s' if chain else ''}://user:{PASSWORD}@127.0.0.1:{self.port}//"
        options = [
            "default_user = user",
            "default_pass = hush/hush",
            "log.console = true",
            "log.file = false",
        ]
        options.append(f"listeners.{'ssl' if chain else 'tcp'}.1 = 127.0.0.1:{self.port}")
        if chain:
            files = (f"ssl_options.{name} = {chain}" for name in ("cacertfile", "certfile", "keyfile"))
            options += ["listeners.tcp = none", "ssl_options.verify = verify_none", *files]
        (folder / "rabbitmq.conf").write_text("\n".join(options) + "\n")
        (folder / "plugins").write_text("[].\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"dispatcher{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        # Erlang's register of names stays behind as a daemon
        subprocess.run(["epmd", "-kill"], env=self._environment, capture_output=True, check=False)

    def start(self) -> None:
        """Starts it with the data that it has, and waits until it serves."""
        log = self._folder / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [PROGRAM], env=self._environment, stdout=file, stderr=file, start_new_session=True
            )
        wait_until(
            lambda: "Server startup complete" in log.read_text(errors="replace"),
            START_SECONDS,
            "RabbitMQ serves",
        )

    def kill(self) -> None:
        """Kills it."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
