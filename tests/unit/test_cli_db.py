"""`routilux db`: what it prints, what it answers the shell."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from routilux_service.cli import app
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from routilux.store import schema

runner = CliRunner()


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROUTILUX_DATABASE_URL", raising=False)
    return tmp_path


def test_upgrade_then_check_is_ok() -> None:
    upgraded = runner.invoke(app, ["db", "upgrade", "--database", "sqlite:///a.db"])
    assert upgraded.exit_code == 0, upgraded.output
    assert schema.HEAD in upgraded.output
    checked = runner.invoke(app, ["db", "check", "--database", "sqlite:///a.db"])
    assert checked.exit_code == 0
    assert "sqlite" in checked.output


def test_check_of_nothing_says_what_to_do_and_makes_nothing(somewhere: Path) -> None:
    checked = runner.invoke(app, ["db", "check"])
    assert checked.exit_code == 1
    assert "routilux db upgrade" in checked.output
    assert list(somewhere.iterdir()) == []


def test_the_default_database_is_a_file_here(somewhere: Path) -> None:
    assert runner.invoke(app, ["db", "upgrade"]).exit_code == 0
    assert (somewhere / "routilux.db").exists()


def test_the_environment_names_the_database(somewhere: Path) -> None:
    result = runner.invoke(app, ["db", "upgrade"], env={"ROUTILUX_DATABASE_URL": "sqlite:///named.db"})
    assert result.exit_code == 0
    assert (somewhere / "named.db").exists()


def test_a_schema_from_the_future_is_refused_with_a_message_not_a_traceback() -> None:
    schema.upgrade("sqlite:///a.db")
    engine = create_engine("sqlite:///a.db")
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    for command in ("check", "upgrade"):
        result = runner.invoke(app, ["db", command, "--database", "sqlite:///a.db"])
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        assert "9999" in result.output


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/a.db"])
def test_a_url_that_leads_nowhere_is_a_message_not_a_traceback(url: str) -> None:
    result = runner.invoke(app, ["db", "upgrade", "--database", url])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "Traceback" not in result.output


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    result = runner.invoke(app, ["bd"])
    assert result.exit_code == 2
    assert "bd" in result.output


def test_help_lists_the_groups() -> None:
    assert "db" in runner.invoke(app, ["--help"]).output


def test_the_version_is_that_of_the_package() -> None:
    assert runner.invoke(app, ["--version"]).output.strip() == f"routilux {version('routilux')}"


def test_python_m_routilux_is_the_same_command_and_imports_rich_only_to_print() -> None:
    program = (
        "import sys, routilux_service.db; assert 'rich' not in sys.modules and 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    shown = subprocess.run(
        [sys.executable, "-m", "routilux", "db", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "upgrade" in shown.stdout
