"""A server that answers what a test says, where no real cluster can be brought to say it."""

import socketserver
import threading
from types import TracebackType
from typing import Self

ALL_MINE = "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$-1\r\n:PORT\r\n$1\r\nx"
"""CLUSTER SLOTS of a node that has all slots, and does not know its own address; PORT stands for its port."""


class Stub:
    """Answers CLUSTER SLOTS with one thing and everything else with another; use in `with`."""

    def __init__(self, answer: str = "+OK", slots: str = ALL_MINE) -> None:
        self.answer = answer
        self.slots = slots
        self.asked: list[str] = []
        """The first word of each command so far; CLIENT SETINFO is not counted."""
        stub = self

        class Answers(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    command = [self._word() for _ in range(int(line[1:]))]
                    self.wfile.write(stub.reply(command[0].decode()).encode() + b"\r\n")

            def _word(self) -> bytes:
                return self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2]

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Answers)
        self.port = self._server.server_address[1]
        self.url = f"redis://127.0.0.1:{self.port}"

    def reply(self, word: str) -> str:
        """The answer to a command."""
        if word == "CLIENT":
            return "+OK"
        self.asked.append(word)
        return (self.slots if word == "CLUSTER" else self.answer).replace("PORT", str(self.port))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
