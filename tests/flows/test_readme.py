"""The programs of the README, as they stand there, run in an empty directory."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
EXPECTED = {
    "quick start": "Hello, Ada!\ncompleted {'count': 1}\n",
    "concurrency": "{'done': 100}\n",
}
POSTGRES = "postgresql+psycopg://app@localhost/app"


def programs() -> dict[str, str]:
    found = re.findall(
        r"<!-- ([\w ]+): run by [\w/.]+ -->\n```python\n(.*?)```", README.read_text(), re.DOTALL
    )
    return dict(found)


def test_the_readme_has_the_programs_that_are_run() -> None:
    assert programs().keys() == {*EXPECTED, "postgres"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_program_of_the_readme_prints_what_it_says(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", programs()[name]], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == EXPECTED[name]
    with sqlite3.connect(tmp_path / "routilux.db") as connection:
        statuses = {row[0] for row in connection.execute("SELECT status FROM routilux_job_history")}
    assert statuses == {"completed"}


def test_the_program_for_postgres_prints_what_the_readme_shows_on_either_database(
    database: str, tmp_path: Path
) -> None:
    program = programs()["postgres"]
    shown = re.search(r"```text\n(.*?)```", README.read_text(), re.DOTALL)
    assert shown is not None
    assert POSTGRES in program
    program = program.replace(POSTGRES, database)
    if database.startswith("sqlite"):  # as the paragraph after it says
        program = f"from routilux import sqlite_engine\n{program}".replace(
            "= create_engine(", "= sqlite_engine("
        )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == shown[1]


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert len(targets) > 5
    assert [target for target in targets if not (README.parent / target).exists()] == []
