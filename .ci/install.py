"""Makes .venv and installs what `make demo` or `make test` needs, each package by its hash.

Does nothing where everything is there. What was interrupted is done again, from pip's cache. Of two calls one waits.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP, UNFINISHED = VENV / ".installed", VENV / ".unfinished"
KINDS = {"demo": ("demo", "dev"), "dev": ("dev",)}
"""What may be wanted, and the installations that have it."""

TROUBLE = (
    (r"No space left|Disk quota exceeded", "the disk is full; make room and try again"),
    (r"Read-only file system|Permission denied|not permitted", f"{VENV} cannot be written to"),
    (
        r"DO NOT MATCH THE HASHES",
        "a package is not the one that was tested: look at your package index or proxy",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the package index's certificate is not trusted: set PIP_CERT to your proxy's",
    ),
    (
        r"ConnectionError|Connection (broken|refused|reset|aborted)|NameResolution|[Tt]imed? ?out|ProxyError|No matching distr",
        "the package index cannot be reached, or lacks a package: look at the network, HTTPS_PROXY and PIP_INDEX_URL, then try again",
    ),
)
"""What pip and the system say, and what that means to whoever called."""


class Failed(Exception):
    """Nothing more can be done; the text says why, and what to do."""


def main() -> None:
    """Installs, or ends with one line that says what to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--exactly", action="store_true", help="with the version of Python that runs this")
    asked = parser.parse_args()
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pip holds it, too: whatever ends first, no other call gets between
        whole = is_whole(exactly=asked.exactly)
        if not whole or not is_linked() or not any(stamp() == wanted(kind) for kind in KINDS[asked.kind]):
            install(asked.kind, lock, anew=not whole)
    except KeyboardInterrupt:
        end("interrupted; the same command does it again", 130)
    except OSError as error:
        end(meaning(str(error)) or str(error))
    except Failed as failed:
        end(str(failed))


def end(text: str, code: int = 1) -> None:
    """Ends with one line."""
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


def stamp() -> dict[str, str]:
    """What the last whole installation was."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def wanted(kind: str) -> dict[str, str]:
    """What an installation of this kind would be, here and now."""
    files = (ROOT / f"requirements-{kind}.txt", ROOT / "pyproject.toml")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return {"kind": kind, "place": str(VENV), "files": digest}


def is_whole(*, exactly: bool) -> bool:
    """Whether .venv was finished, has not moved, starts, and has the version of Python that is asked for."""
    if UNFINISHED.exists() or stamp().get("place", str(VENV)) != str(VENV):
        return False
    code = "import importlib.util, sys; print(*sys.version_info[:3]); sys.exit(not importlib.util.find_spec('pip'))"
    try:
        done = subprocess.run([PYTHON, "-I", "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    same = done.stdout.split() == [str(number) for number in sys.version_info[:3]]
    return done.returncode == 0 and (same or not exactly)


def is_linked() -> bool:
    """Whether .venv has this checkout itself: after `pip install .` it has a copy, in which no edit is seen."""
    found = VENV.glob("lib/*/site-packages/*.dist-info/direct_url.json")
    return any(json.loads(path.read_text()).get("dir_info", {}).get("editable") for path in found)


def install(kind: str, lock: int, *, anew: bool) -> None:
    """Installs into .venv, or into a new one. Raises Failed."""
    if VENV.is_symlink():  # what is there belongs to another place, and would be emptied
        raise Failed(f".venv is a link to {VENV.readlink()}; remove the link: rm .venv")
    began = time.monotonic()
    requirements = ROOT / f"requirements-{kind}.txt"
    count = len(re.findall(r"^\w", requirements.read_text(), re.M))
    print(f"installing {count} packages into .venv, once (Python {sys.version.split()[0]})", flush=True)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    if anew:
        make_venv()
    pip("--require-hashes", "-r", str(requirements), lock=lock, count=count)
    pip("--no-build-isolation", "-e", str(ROOT), lock=lock, count=0)
    STAMP.write_text(json.dumps(wanted(kind)))
    UNFINISHED.unlink()
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)


def make_venv() -> None:
    """An empty virtual environment with pip. Raises Failed."""
    command = [sys.executable, "-I", "-m", "venv", "--clear", str(VENV)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()  # --clear removed it
    if done.returncode:
        package = "python{}.{}-venv".format(*sys.version_info)
        raise Failed(
            meaning(done.stdout)
            or f"{sys.executable} cannot make virtual environments; on Debian or Ubuntu: apt-get install {package}"
        )


def pip(*arguments: str, lock: int, count: int) -> None:
    """Runs `pip install`, and shows how far it is with so many packages. Raises Failed."""
    command = [
        str(PYTHON),
        "-I",
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-input",
        "--disable-pip-version-check",
    ]
    ours = (
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_QUIET",
        "PIP_VERBOSE",
    )  # would change where it goes, or what we read
    said: list[str] = []
    with subprocess.Popen(
        [*command, "--progress-bar", "off", *arguments],
        env={name: value for name, value in os.environ.items() if name not in ours},
        pass_fds=[lock],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        reader = threading.Thread(target=said.extend, args=[process.stdout], daemon=True)
        reader.start()
        show = Progress()
        while reader.is_alive():
            reader.join(show.seconds)
            if count:
                show(how_far(said, count))
        show.end()
    if process.returncode:
        text = "".join(said)
        raise Failed(meaning(text) or f"pip failed: {text.strip().splitlines()[-1]}")


def how_far(said: Sequence[str], count: int) -> str:
    """What pip does now, by what it said and what is in .venv."""
    unpacking = next((line for line in said if line.startswith("Installing collected")), None)
    if unpacking:
        there = sum(1 for _ in VENV.glob("lib/*/site-packages/*.dist-info"))
        count = unpacking.count(",") + 1
        return f"unpacked {min(there, count)} of {count}"
    if said and "Retrying (" in said[-1]:
        return "the package index does not answer; trying again"
    found = sum(line.startswith(("Collecting ", "Ignoring ", "Requirement already")) for line in said)
    return f"downloaded {min(found, count)} of {count}"


class Progress:
    """One line that changes on a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self.seconds = 0.2 if self._terminal else 5.0
        self._shown = ""

    def __call__(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            print(
                f"\r\033[K  {text}" if self._terminal else f"  {text}",
                end="" if self._terminal else "\n",
                flush=True,
            )

    def end(self) -> None:
        """Leaves no half line."""
        if self._terminal and self._shown:
            print("\r\033[K", end="", flush=True)


def meaning(text: str) -> str | None:
    """What to do about what pip or the system says; None where that is not known."""
    return next((line for pattern, line in TROUBLE if re.search(pattern, text)), None)


if __name__ == "__main__":
    main()
