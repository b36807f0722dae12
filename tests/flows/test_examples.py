"""The programs of docs/examples and the documented quick start, each run in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.looking import column

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_each_example_says_what_it_prints() -> None:
    assert sorted(path.stem for path in (EXAMPLES / "expected").iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_it_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUTILUX_DATABASE_URL", raising=False)
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == (EXAMPLES / "expected" / f"{name}.txt").read_text()
    assert done.returncode == 0


QUICK_START = """
from routilux import Flow, Routine
from routilux.activation_policies import immediate_policy
from routilux.core import get_current_job
from routilux.core.error import ErrorHandler, ErrorStrategy
from routilux.monitoring.flow_registry import FlowRegistry
from routilux.runtime import Runtime

class Greeter(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("trigger")
        self.add_event("output", ["greeting"])
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.greet)

    def greet(self, slot_data, policy_message, worker_state):
        for item in slot_data.get("trigger", []):
            self.emit("output", greeting=f"Hello, {item.get('name', 'World')}!")

class Printer(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY))
        self.set_logic(self.show)

    def show(self, slot_data, policy_message, worker_state):
        for item in slot_data.get("input", []):
            print(item["greeting"], get_current_job().metadata)

flow = Flow("greetings")
source, sink = flow.add_routine(Greeter(), "greeter"), flow.add_routine(Printer(), "printer")
flow.connect(source, "output", sink, "input")
FlowRegistry.get_instance().register_by_name("greetings", flow)
with Runtime(thread_pool_size=10) as runtime:
    runtime.exec("greetings")
    worker_state, job = runtime.post("greetings", "greeter", "trigger", {"name": "Ada"}, metadata={"user": 1})
    print(runtime.wait_until_all_jobs_finished(timeout=30), job.status, worker_state.status)
"""


@pytest.mark.old_bug(16)
def test_old_bug_16_documented_programs_did_not_start(tmp_path: Path) -> None:
    """A quick start with the documented import paths and calls runs as it stands, in an empty folder, with
    nothing set up.
    """
    environment = {key: value for key, value in os.environ.items() if key != "ROUTILUX_DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUICK_START],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == "Hello, Ada! {'user': 1}\nTrue completed idle\n"
    assert column(f"sqlite:///{tmp_path}/routilux.db", "SELECT status FROM routilux_job_history") == [
        "completed"
    ]
