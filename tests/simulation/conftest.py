"""Seeds, and how soon each broken engine was caught, are told in the summary of every run."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "simulated":
                terminalreporter.write_line(f"simulated: {value}")
