"""`routilux daemon`: a real process, real signals; the work comes from a `Client`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from routilux import Client
from routilux.errors import FlowNotFoundError
from tests.support.waiting import eventually

APP = """
import pathlib, time
from routilux import Flow, FlowRegistry, Routine, immediate_policy

class Sign(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        item = slot_data["input"][0]
        with open("entered", "a") as notes:
            notes.write(item["name"] + chr(10))
        while item.get("until") and not pathlib.Path(item["until"]).exists():
            time.sleep(0.01)
        worker_state.increment("sign", "count")

flow = Flow("visitors")
flow.add_routine(Sign(), "sign")
FlowRegistry.get_instance().register_by_name("visitors", flow)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a daemon in an empty folder that holds the package `guests` with the module `book`."""
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests" / "book.py").write_text(APP)
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "routilux", "daemon", *arguments],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "ROUTILUX_DATABASE_URL"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _client(url: str) -> Client:
    """Once the daemon has published its flow."""
    client = Client(url)

    def is_served() -> bool:
        try:
            client._host.check_slot("visitors", "sign", "input")
        except FlowNotFoundError:
            return False
        return True

    eventually(is_served, timeout=30)
    return client


def _entered(folder: Path) -> list[str]:
    notes = folder / "entered"
    return notes.read_text().split() if notes.exists() else []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_what_a_client_posts_until_it_is_told_to_stop(
    database: str, start: Start, how: signal.Signals
) -> None:
    daemon = start("--app", "guests.book", "--database", database)
    with _client(database) as client:
        jobs = client.post_many("visitors", "sign", "input", [{"name": f"guest-{n}"} for n in range(50)])
        assert all(job.wait(30) for job in jobs)
        assert {job.status for job in jobs} == {"completed"}
    daemon.send_signal(how)
    _, log = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, log
    assert "running visitors" in log
    assert "stopped" in log


def test_a_stop_finishes_what_runs_and_leaves_the_rest_to_the_next_start(
    database: str, start: Start, tmp_path: Path
) -> None:
    daemon = start("--app", "guests.book", "--database", database)
    with _client(database) as client:
        running = client.post("visitors", "sign", "input", {"name": "slow", "until": "go"})
        eventually(lambda: _entered(tmp_path) == ["slow"], timeout=30)
        waiting = client.post("visitors", "sign", "input", {"name": "next"})
        daemon.send_signal(signal.SIGTERM)
        daemon.send_signal(signal.SIGTERM)  # as timeout(1) does
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(0.3)
        (tmp_path / "go").touch()
        _, log = daemon.communicate(timeout=30)
        assert daemon.returncode == 0, log
        assert running.status == "completed"
        assert waiting.status == "pending"
        with create_engine(database, poolclass=NullPool).connect() as connection:
            owners = "SELECT count(*) FROM routilux_workers WHERE owner IS NOT NULL"
            alive = "SELECT count(*) FROM routilux_runtimes WHERE state = 'alive'"
            assert connection.scalar(text(owners)) == connection.scalar(text(alive)) == 0

        start("--app", "guests.book", "--database", database)
        assert waiting.job.wait(30)
    assert _entered(tmp_path) == ["slow", "next"]


def test_killed_it_is_started_again_and_the_job_is_done(database: str, start: Start, tmp_path: Path) -> None:
    daemon = start("--app", "guests.book", "--database", database)
    with _client(database) as client:
        posted = client.post("visitors", "sign", "input", {"name": "slow", "until": "go"})
        eventually(lambda: _entered(tmp_path) == ["slow"], timeout=30)
        daemon.kill()
        daemon.wait()
        (tmp_path / "go").touch()
        start("--app", "guests.book", "--database", database)
        assert posted.job.wait(30)
    assert _entered(tmp_path) == ["slow", "slow"]


def test_the_default_database_is_a_file_in_the_working_directory(start: Start, tmp_path: Path) -> None:
    daemon = start("--app", "guests.book")
    eventually((tmp_path / "routilux.db").exists, timeout=30)
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=30)


@pytest.mark.parametrize(
    ("source", "app", "words"),
    [
        (None, "nowhere.at_all", "no module named 'nowhere'"),
        (None, "guests.nobody", "no module named 'guests.nobody'"),
        (None, "guests/book.py", "takes the name of a module"),
        ("x = 1", "mine", "registers no flow"),
        ("import missing_thing", "mine", "No module named 'missing_thing'"),
        ("def f():\n    return 1 / 0\n\nf()", "mine", 'mine.py", line 4, in <module>'),
    ],
)
def test_a_module_that_cannot_be_run_is_a_message(
    start: Start, tmp_path: Path, source: str | None, app: str, words: str
) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    daemon = start("--app", app)
    printed, log = daemon.communicate(timeout=30)
    assert (daemon.returncode, printed) == (1, "")
    assert log.startswith("error: ")
    assert words in log
    assert "importlib" not in log
    assert not (tmp_path / "routilux.db").exists()


def test_a_database_that_cannot_serve_is_a_message(start: Start) -> None:
    daemon = start("--app", "guests.book", "--database", "postgresql+psycopg://u:secret@127.0.0.1:1/x")
    _, log = daemon.communicate(timeout=60)
    assert daemon.returncode == 1
    assert log.startswith("error: ")
    assert "Traceback" not in log
    assert "secret" not in log
