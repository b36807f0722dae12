"""Counts the tests that ran on each database, and fails the session when the counts differ.

A shared suite that silently skips Postgres proves nothing about it. The counts are judged when the whole
suite ran, and always in CI (`CI=true`). It also tells how long each folder of tests took. Tests may run in
several processes (pytest-xdist): each test carries the name of its database in its report.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import pytest

BACKENDS = ("sqlite", "postgres")
PROPERTY = "shared suite"


class SharedSuites:
    """A plugin of one session; registered in `pytest_configure`."""

    def __init__(self) -> None:
        self._ran: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._is_selection = False

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._is_selection = True

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        config = session.config
        is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if not is_whole or config.option.keyword or config.option.markexpr:
            self._is_selection = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            callspec = getattr(item, "callspec", None)
            if callspec is not None and callspec.params.get("database") in BACKENDS:
                item.user_properties.append((PROPERTY, callspec.params["database"]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration
        backend = dict(report.user_properties).get(PROPERTY)
        if backend is None:
            return
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[str(backend)] += 1
        elif report.when == "call":
            self._ran[str(backend)] += 1

    def fault(self) -> str | None:
        """What is wrong with this session, or None."""
        if self._is_selection and os.environ.get("CI") != "true":
            return None
        if self._skipped["postgres"]:
            return f"{self._skipped['postgres']} skipped on postgres"
        if self._ran["sqlite"] != self._ran["postgres"]:
            return "not the same tests ran on both databases"
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        is_worker = hasattr(session.config, "workerinput")  # the counts of all are where the reports go
        if not is_worker and exitstatus == pytest.ExitCode.OK and self.fault() is not None:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        counts = " ".join(f"{backend}={self._ran[backend]}" for backend in BACKENDS)
        shares = ", ".join(f"{folder} {seconds:.0f} s" for folder, seconds in sorted(self._seconds.items()))
        terminalreporter.write_line(f"time: {shares}")
        terminalreporter.write_line(f"shared suites: {counts}")
        if (fault := self.fault()) is not None:
            terminalreporter.write_line(f"shared suites: {fault}", red=True)
