"""The document about partitions: its vectors are what this version computes, and its code computes the same."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher.rules.partitions import Partitioning, tags
from tasks import partition_docs

Case = tuple[int, str, str, int]

CASES: list[Case] = [
    *partition_docs.CHANGES,
    *(
        (partitions, f"w{number}", f"m-{number}.{partitions}", 1 + number % 64)
        for partitions in (1, 2, 3, 5, 16, 100, 255, 256, 1000, 1024)
        for number in range(40)
    ),
]
SECONDS = 100
GO_MAIN = """package main

import (
	"encoding/json"
	"os"
)

func main() {
	var cases [][]any
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	found := []string{}
	for _, one := range cases {
		of := Tags(int(one[0].(float64)))
		found = append(found, QueueOf("dispatcher", of, one[1].(string), one[2].(string), int(one[3].(float64))))
	}
	json.NewEncoder(os.Stdout).Encode(found)
}
"""
JS_MAIN = """
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(([p, w, m, width]) => queueOf("dispatcher", tags(p), w, m, width))));
"""


def code(language: str) -> str:
    """The document's block that implements it in a language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", partition_docs.DOCUMENT.read_text(), re.M | re.S)
    (found,) = [one for one in blocks if "16384" in one]
    return str(found)


def in_python(_folder: Path) -> list[str]:
    """What the Python code says."""
    names: dict[str, Any] = {}
    exec(code("python"), names)
    return [names["queue_of"]("dispatcher", *case) for case in CASES]


def in_go(folder: Path) -> list[str]:
    """What the Go code says."""
    (folder / "partitions.go").write_text(code("go"))
    (folder / "main.go").write_text(GO_MAIN)
    environment = os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    command = [tool("go"), "build", "-o", "program", "partitions.go", "main.go"]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=SECONDS)
    return asked([str(folder / "program")])


def in_javascript(_folder: Path) -> list[str]:
    """What the JavaScript code says."""
    return asked([tool("node"), "-e", code("js") + JS_MAIN])


def asked(command: list[str]) -> list[str]:
    """A program's answers to the cases."""
    done = subprocess.run(
        command, input=json.dumps(CASES).encode(), stdout=subprocess.PIPE, check=True, timeout=SECONDS
    )
    found: list[str] = json.loads(done.stdout)
    return found


def tool(name: str) -> str:
    """The path of a program; skips where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/go/bin")
    if not found:
        pytest.skip(f"no {name} here")
    return found


def test_vectors() -> None:
    """The document has the vectors that `make docs` writes."""
    assert partition_docs.written() == partition_docs.DOCUMENT.read_text()


def test_vectors_stay() -> None:
    """These never change: producers in other languages compute the same, and data in Redis lies where they say."""
    assert ("2", "0") == tags(2)
    assert [
        "10",
        "3",
        "61",
        "43",
        "11",
        "2",
        "60",
        "42",
        "12",
        "1",
        "63",
        "41",
        "13",
        "0",
        "62",
        "40",
    ] == list(tags(16))
    assert (40, "dispatcher:{72}:events") == partition_docs.queue_of(256, "acme", partition_docs.MESSAGE, 1)
    assert (45, "dispatcher:{212}:events") == partition_docs.queue_of(256, "acme", partition_docs.MESSAGE, 8)
    assert (61, "dispatcher:{477}:events") == partition_docs.queue_of(
        1024, "acme", partition_docs.MESSAGE, 64
    )


@pytest.mark.parametrize("run", [in_python, in_go, in_javascript])
def test_code(tmp_path: Path, run: Callable[[Path], list[str]]) -> None:
    """The document's code names the same queues as a producer writes to."""
    assert [partition_docs.queue_of(*case)[1] for case in CASES] == run(tmp_path)


def test_names_that_differ_in_digits() -> None:
    """What the document says of such names is so."""
    said = re.search(
        r"of (\d+) partitions `w0` to `w(\d+)` are in (\d+), `w0` to `w(\d+)` in all, "
        r"and of `w0` to `w(\d+)` some partitions have (\d+) and others (\d+)",
        partition_docs.DOCUMENT.read_text(),
    )
    assert said
    count, some, reached, enough, many, least, most = map(int, said.groups())
    homes = [Partitioning(count).home(f"w{number}") for number in range(many + 1)]
    assert reached == len({*homes[: some + 1]})
    assert count - 1 == len({*homes[:enough]})
    assert count == len({*homes[: enough + 1]})
    assert (least, most) == (min(Counter(homes).values()), max(Counter(homes).values()))
