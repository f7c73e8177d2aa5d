"""A line for each file of tests that was run, and for each failure at once: for two runs that share a terminal.

`make test` loads it. Each line is written at once, so lines of two processes do not mix.
"""

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Replaces the letters of passed tests by lines of files."""
    config.pluginmanager.register(Progress(config), "progress")


class Progress:
    """Counts what was run."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._files: dict[str, int] = {}
        """How many tests of each file are still to be run."""
        self._done = self._total = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Counts what is to be run."""
        self._total = len(session.items)
        for item in session.items:
            file = item.nodeid.partition("::")[0]
            self._files[file] = self._files.get(file, 0) + 1

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> Generator[None, Any, tuple[str, str, Any]]:
        """No letter for any test."""
        category, _, word = yield
        return category, "", "" if report.passed else word

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A line for a test that failed."""
        if report.failed:
            self._reporter.write(f"FAILED {report.nodeid} ({report.when})\n", flush=True)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A line where the last test of a file was run."""
        file = nodeid.partition("::")[0]
        self._done += 1
        self._files[file] -= 1
        if not self._files[file]:
            share = 100 * self._done // self._total
            self._reporter.write(
                f"{share:3} %  {self._done:,} of {self._total:,} tests  {file}\n", flush=True
            )
