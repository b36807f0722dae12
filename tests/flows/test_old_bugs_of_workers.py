"""What the first Routilux got wrong about workers, time and restarts, each seen by running it, and what holds
here.

One test per line of the last section of docs/reference/settled.md, which is made from the names and
docstrings here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from routilux import WorkerEndedError, WorkerState
from routilux.activation_policies import batch_size_policy, time_interval_policy
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.looking import column

ROOT = Path(__file__).resolve().parents[2]


def count(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
    worker_state.increment("seen", "count")


@pytest.mark.old_bug(7)
def test_old_bug_07_a_worker_failed_when_its_flow_s_time_was_over(sqlite_database: str) -> None:
    """The time limit of a flow is not one of its workers: one that has lived longer, idle or restarted, runs
    the next job.
    """
    registry = chain(Step(count))
    registry.resolve("f").execution_timeout = 1.0
    with running(sqlite_database, registry) as runtime:
        assert post(runtime, {}).wait(10)
        assert post(runtime, {}, delay=1.1).wait(10)
    with running(sqlite_database, registry) as runtime:
        worker, job = runtime.post("f", "s0", "input", {}, "w")
        assert job.wait(10)
        assert (job.status, worker.status) == ("completed", "idle")
        assert worker.get_routine_state("seen") == {"count": 3}


@pytest.mark.old_bug(8)
def test_old_bug_08_a_pause_did_not_last_and_a_cancelled_worker_went_on(sqlite_database: str) -> None:
    """A paused worker stays paused until it is resumed, and then goes on; a cancelled one takes no more
    posts.
    """
    with running(sqlite_database, chain(Step(count))) as runtime:
        worker = runtime.exec("f", worker_id="w")
        runtime.pause_worker("w")
        job = post(runtime, {})
        assert not job.wait(0.3)
        assert worker.status == "paused"
        runtime.resume_worker("w")
        assert job.wait(10)
        runtime.cancel_worker("w")
        with pytest.raises(WorkerEndedError):
            post(runtime, {})
        assert worker.status == "cancelled"
        assert worker.get_routine_state("seen") == {"count": 1}


@pytest.mark.old_bug(9)
def test_old_bug_09_gathering_policies_shared_a_clock_and_forgot_the_rest(sqlite_database: str) -> None:
    """Each routine has an interval of its own, which ends without a new message too; the last partial batch
    is delivered.
    """
    sizes: dict[str, list[int]] = {"long": [], "other": [], "short": [], "batch": []}
    policies = {
        "long": time_interval_policy(3600),
        "other": time_interval_policy(3600),
        "short": time_interval_policy(0.2),
        "batch": batch_size_policy(5),
    }
    registry = flow_of(**{
        name: taking(
            "in",
            logic=lambda slot_data, policy_message, worker_state,
            name=name: sizes[name].append(len(slot_data["in"])),
            policy=policy,
        )
        for name, policy in policies.items()
    })  # fmt: skip
    with running(sqlite_database, registry) as runtime:
        for name in ("long", "other", "short", "short"):
            assert runtime.post("f", name, "in", {}, "w").job.wait(10), name
        runtime.post_many("f", "batch", "in", [{} for _ in range(7)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(10)
    assert sizes == {"long": [1], "other": [1], "short": [1, 1], "batch": [5, 2]}


@pytest.mark.old_bug(10)
def test_old_bug_10_waiting_ended_before_accepted_work_began(sqlite_database: str) -> None:
    """Waiting for all jobs waits for what was accepted and has not begun."""
    gate, begun = threading.Event(), threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        begun.set()
        assert gate.wait(20)
        step.emit("output")

    with running(sqlite_database, chain(Step(hold), Step(count))) as runtime:
        jobs = [post(runtime, {}) for _ in range(20)]
        assert begun.wait(10)
        assert not runtime.wait_until_all_jobs_finished(0.1)
        gate.set()
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
        assert runtime.exec("f", worker_id="w").get_routine_state("seen") == {"count": 20}


@pytest.mark.old_bug(11)
def test_old_bug_11_configuration_was_frozen_by_the_first_exec(sqlite_database: str) -> None:
    """`set_config` works after `exec`; it is refused inside logic only."""
    seen: list[int] = []

    def read(step: Step, slot_data: Any, worker_state: Any) -> None:
        seen.append(step.get_config("n"))
        step.set_config(n=99)

    step = Step(read)
    with running(sqlite_database, chain(step)) as runtime:
        step.set_config(n=1)
        job = post(runtime, {})
        assert job.wait(10)
        assert "Cannot modify _config during execution" in str(job.error)
        step.set_config(n=2)
        assert post(runtime, {}).wait(10)
    assert seen == [1, 2]


@pytest.mark.old_bug(12)
def test_old_bug_12_the_engine_overwrote_a_routine_s_own_state(sqlite_database: str) -> None:
    """What a routine keeps under its own id is its own: the engine writes nothing into it."""

    def process(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        before = worker_state.get_routine_state("s0", {})
        processed = {
            "processed_count": before.get("processed_count", 0) + 1,
            "last_value": slot_data["input"][0]["n"],
        }
        worker_state.update_routine_state("s0", processed)

    with running(sqlite_database, chain(Step(process))) as runtime:
        for n in range(5):
            post(runtime, {"n": n})
        assert runtime.wait_until_all_jobs_finished(10)
        worker = runtime.exec("f", worker_id="w")
        assert worker.routine_states == {"s0": {"processed_count": 5, "last_value": 4}}


KILLED = """
import os, signal, sys
from routilux import Post
from tests.flows.flows import Step, chain, running
from tests.flows.test_old_bugs_of_workers import count
with running(sys.argv[1], chain(Step(count))) as runtime:
    runtime.post("f", "s0", "input", {}, "w", job_id="done").job.wait()
    runtime.pause_worker("w")
    runtime.post_many("f", "s0", "input", [Post({}, job_id=name) for name in ("one", "two")], worker_id="w")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.old_bug(13)
def test_old_bug_13_nothing_outlived_the_process(sqlite_database: str, tmp_path: Path) -> None:
    """After `kill -9` every message, job and state that was accepted is there and goes on, without a save; a
    saved state starts a worker elsewhere.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, sqlite_database], cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    with running(sqlite_database, chain(Step(count))) as runtime:
        assert runtime.get_job("done").is_completed()  # type: ignore[union-attr]  # it is there
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.job_id for job in runtime.list_jobs(status="completed")} == {"done", "one", "two"}
        worker = runtime.exec("f", worker_id="w")
        assert worker.get_routine_state("seen") == {"count": 3}
        worker.save(tmp_path / "state.json")
        other = runtime.exec("f", WorkerState.load(tmp_path / "state.json"), worker_id="other")
        assert runtime.post("f", "s0", "input", {}, "other").job.wait(10)
        assert other.get_routine_state("seen") == {"count": 4}
        assert worker.get_routine_state("seen") == {"count": 3}


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
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "Hello, Ada! {'user': 1}\nTrue completed idle\n"
    assert column(f"sqlite:///{tmp_path}/routilux.db", "SELECT status FROM routilux_job_history") == [
        "completed"
    ]
