"""`make check` and the session's own guard fail on a planted fault, and pass without it.

The project's own configuration is copied beside a tiny package of the same names; each check runs as `make
check` runs it. The layers are checked in a copy of the whole project, since the contracts name its modules.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOUND = {
    "routilux/__init__.py": '"""Planted."""\n',
    "routilux/py.typed": "",
    "routilux/errors/__init__.py": '"""Planted."""\n',
    "routilux/core/__init__.py": '"""Planted."""\n\nLIMIT: int = 1\n',
    "routilux/store/__init__.py": '"""Planted."""\n\nfrom routilux.core import LIMIT\n\nWIDTH: int = LIMIT\n',
    "routilux/runtime/__init__.py": '"""Planted."""\n',
    "routilux/testing/__init__.py": '"""Planted."""\n',
    "routilux/__main__.py": '"""Planted."""\n\nimport routilux_service.cli as cli\n\nname = cli.NAME\n',
    "service/routilux_service/__init__.py": '"""Planted."""\n',
    "service/routilux_service/cli.py": '"""Planted."""\n\nNAME: str = "routilux"\n',
    "migrations/routilux_migrations/__init__.py": '"""Planted."""\n',
}
CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
}
FAULTS = {
    "format": ("routilux/core/__init__.py", "LIMIT  =  1\n"),
    "lint": ("routilux/core/__init__.py", "import os\n"),
    "lint-print": ("routilux/core/__init__.py", 'print("left behind")\n'),
    "types": ("routilux/core/__init__.py", 'LIMIT: int = "one"\n'),
    "types-unannotated": ("routilux/core/__init__.py", "LIMIT = 1\n\n\ndef f(a):\n    return a\n"),
    "types-service": ("service/routilux_service/cli.py", "NAME: str = 1\n"),
    "types-migrations": ("migrations/routilux_migrations/__init__.py", "WIDTH: str = 1\n"),
    "layers": ("routilux/core/__init__.py", "import routilux.store\n"),
    "layers-service": ("routilux/runtime/__init__.py", "import routilux_service\n"),
    "layers-sql-in-core": ("routilux/core/__init__.py", "import sqlalchemy\n"),
    "layers-threads-in-core": ("routilux/core/__init__.py", "import threading\n"),
    "layers-beside": ("routilux/execution/pool.py", "import routilux.ownership.lease\n"),
    "layers-part-to-part": ("routilux/engine/counters.py", "import routilux.engine.scheduler\n"),
    "layers-reads-that-write": ("routilux/store/reads/lineage.py", "import routilux.store.writes.bulk\n"),
    "layers-sql-outside-the-store": ("routilux/runtime/posting.py", "import sqlalchemy\n"),
    "layers-circle-of-types": (
        "routilux/core/slot.py",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import routilux.core.event\n",
    ),
    "layers-migrations": ("migrations/routilux_migrations/__init__.py", "import routilux.runtime\n"),
}


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a project may lie."""
    # what mypy learns about the standard library serves all of these tests
    monkeypatch.setenv("MYPY_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "mypy"))
    return tmp_path


def plant(check: str, folder: Path) -> None:
    """A sound project in the shape of this one."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    if check == "layers":
        for name in ("routilux", "service", "migrations"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        return
    for name, text in SOUND.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def run(check: str, project: Path) -> subprocess.CompletedProcess[str]:
    """As the Makefile does, from the environment of these tests. Only planted packages can be imported."""
    program, *arguments = CHECKS[check]
    paths = [str(project), str(project / "service"), str(project / "migrations")]
    return subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


def test_the_checks_here_are_those_of_make_check() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]

    commands = [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()[1:]]

    assert commands == [" ".join(command) for command in CHECKS.values()]


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_passes_a_sound_project(check: str, folder: Path) -> None:
    plant(check, folder)

    done = run(check, folder)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_fails_on_a_planted_fault(fault: str, folder: Path) -> None:
    check, (file, text) = fault.split("-")[0], FAULTS[fault]
    plant(check, folder)
    with (folder / file).open("a") as opened:
        opened.write("\n" + text)

    done = run(check, folder)

    assert done.returncode == 1, done.stdout + done.stderr
    assert check != "layers" or "BROKEN" in done.stdout, done.stdout


SHARED = """
import pytest

@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    return request.param

def test_one(database):
    {body}
"""
CONFTEST = """
from tests.support.shared_suites import SharedSuites

def pytest_configure(config):
    config.pluginmanager.register(SharedSuites())
"""


@pytest.mark.parametrize(
    ("body", "arguments", "ci", "expected"),
    [
        ("pass", [], "", 0),
        ("database == 'postgres' and pytest.skip('no server')", [], "", 1),
        ("database == 'postgres' and pytest.skip('no server')", ["-k", "not alone"], "", 0),
        ("database == 'postgres' and pytest.skip('no server')", ["suite/test_shared.py"], "", 0),
        ("database == 'postgres' and pytest.skip('no server')", ["suite/test_shared.py"], "true", 1),
        ("pass", ["suite/test_shared.py", "-k", "sqlite"], "true", 1),
        ("assert database == 'sqlite'", [], "", 1),
    ],
)
def test_a_session_fails_when_shared_tests_did_not_run_on_postgres(
    body: str, arguments: list[str], ci: str, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = suite\n")
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/conftest.py").write_text(CONFTEST)
    (tmp_path / "suite/test_shared.py").write_text(
        SHARED.format(body=body) + "\ndef test_one_alone():\n    pass\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CI": ci},
        capture_output=True,
        text=True,
    )

    assert done.returncode == expected, done.stdout + done.stderr
    assert "shared suites: sqlite=1" in done.stdout
