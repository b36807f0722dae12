"""Workers: how they start, what their status says, and that each has its own messages and state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from routilux import Flow, FlowRegistry, Runtime, WorkerState, get_current_job_id
from routilux.activation_policies import immediate_policy
from routilux.ownership import handover
from tests.flows.flows import GOOD, Gate, SeenNumbers, Step, chain, count, flow_of, post, running, taking
from tests.support.looking import column, rows, stored
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

KILLED = """
import os, signal, sys
from routilux import Post
from tests.flows.flows import Step, chain, count, running
with running(sys.argv[1], chain(Step(count))) as runtime:
    runtime.post("f", "s0", "input", {}, "w", job_id="done").job.wait()
    runtime.pause_worker("w")
    runtime.post_many("f", "s0", "input", [Post({}, job_id=name) for name in ("one", "two")], worker_id="w")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.settled_row(3)
def test_row_03_exec_starts_a_worker_and_triggers_nothing(sqlite_database: str) -> None:
    """`exec` starts a worker and triggers nothing; with `entry_params` it also posts them, once, to the slot
    `trigger` of the first routine that has one.
    """
    seen: list[Any] = []
    routines = {
        name: taking(
            "trigger",
            logic=lambda slot_data, policy_message, worker_state: seen.append(slot_data["trigger"]),
            policy=immediate_policy(),
        )
        for name in ("first", "second")
    }
    with running(sqlite_database, flow_of(**routines)) as runtime:
        runtime.exec("f")
        assert runtime.wait_until_all_jobs_finished(10)
        assert stored(sqlite_database)["messages"] == 0
        runtime.exec("f", entry_params={"n": 1})
        assert runtime.wait_until_all_jobs_finished(10)
    assert seen == [[{"n": 1}]]


@pytest.mark.settled_row(4)
def test_row_04_exec_returns_the_state_of_a_worker(sqlite_database: str) -> None:
    """`exec` returns a `WorkerState`: with the status of the worker, not of a job,
    and nothing to wait for.
    """
    with running(sqlite_database, chain(Step(count))) as runtime:
        worker = runtime.exec("f", worker_id="mine")
        job = runtime.post("f", "s0", "input", {}, "mine").job
        assert runtime.wait_until_all_jobs_finished(10)
        assert isinstance(worker, WorkerState)
        assert worker.worker_id == "mine"
        assert (worker.status, job.status) == ("idle", "completed")
        assert not hasattr(worker, "wait")


def test_a_worker_goes_from_pending_to_idle_to_running_and_back(database: str) -> None:
    gate = Gate()
    registry = chain(Step(gate))
    with running(database, registry) as runtime:
        worker = runtime.exec("f", worker_id="w")
        assert worker.status == "idle"
        job = post(runtime, {})
        assert gate.begun.wait(10)
        assert worker.status == "running"
        gate.go.set()
        assert job.wait(10)
        eventually(lambda: worker.status == "idle")
        late = post(runtime, {}, delay=3600)
    assert column(database, "SELECT status FROM routilux_workers") == ["pending"]  # has work, nobody runs it
    with running(database, registry) as runtime:
        runtime.cancel_job(late.job_id)
    assert column(database, "SELECT status FROM routilux_workers") == ["idle"]


def test_a_recovered_worker_that_nobody_named_is_completed_when_its_work_is_done(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "CLOSE_AFTER_S", 0.5)
    gate = Gate()
    registry = chain(Step(gate))
    runtime = Runtime(1, database=database, registry=registry)
    job_id = runtime.post(*GOOD, {}).job_id
    runtime.pause_worker(runtime.get_job(job_id).worker_id)
    runtime.shutdown(timeout=0.3)
    gate.go.set()
    with Runtime(1, database=database, registry=registry) as runtime:
        job = runtime.get_job(job_id)
        runtime.resume_worker(job.worker_id)
        assert job.wait(10)
        eventually(
            lambda: column(database, "SELECT status FROM routilux_workers") == ["completed"], timeout=20
        )
        assert runtime.post(*GOOD, {}, job.worker_id).job.wait(10)  # asked for by name it starts again
    with Runtime(1, database=database, registry=registry) as runtime:  # and stays from now on
        runtime.exec("f", worker_id=job.worker_id)
    assert rows(database, "SELECT status, is_named FROM routilux_workers") == [("idle", 1)]


@pytest.mark.settled_row(33)
def test_row_33_a_worker_says_what_it_does(sqlite_database: str) -> None:
    """A worker is `pending` before it is started, then `idle` or `running`, `paused` and `cancelled` by its
    users; one without a name that is left with nothing to do is `completed`.
    """
    gate, begun = threading.Event(), threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        begun.set()
        assert gate.wait(20)

    seen = [WorkerState("f").status]
    with running(sqlite_database, chain(Step(hold))) as runtime:
        worker = runtime.exec("f", worker_id="w")
        seen.append(worker.status)
        job = post(runtime, {})
        assert begun.wait(10)
        seen.append(worker.status)
        gate.set()
        assert job.wait(10)
        runtime.pause_worker("w")
        seen.append(worker.status)
        runtime.cancel_worker("w")
        seen.append(worker.status)
        left = runtime.exec("f").worker_id
    assert seen == ["pending", "idle", "running", "paused", "cancelled"]
    ended = "SELECT status FROM routilux_workers WHERE worker_id = :left"
    assert column(sqlite_database, ended, left=left) == ["completed"]


def test_two_workers_of_one_flow_share_nothing(database: str) -> None:
    registry = FlowRegistry()
    flow = Flow("f")
    seen = SeenNumbers()
    flow.add_routine(Step(seen), "s0")
    registry.register_by_name("f", flow)
    with running(database, registry) as runtime:
        other = runtime.exec("f", worker_id="v")
        runtime.pause_worker("v")
        waiting = [runtime.post(*GOOD, {"n": n}, "v").job for n in range(3)]
        jobs = [post(runtime, {"n": n}) for n in range(10, 15)]
        assert all(job.wait(10) for job in jobs)
        assert seen.items == [10, 11, 12, 13, 14]
        assert other.get_routine_state("s0") is None
        runtime.resume_worker("v")
        assert all(job.wait(10) for job in waiting)
        assert other.get_routine_state("s0") == {"done": 3}
        assert runtime.exec("f", worker_id="w").get_routine_state("s0") == {"done": 5}


@pytest.mark.old_bug(2)
def test_old_bug_02_workers_shared_the_queues_of_their_flow(sqlite_database: str) -> None:
    """A message carries its job and waits in a slot of its worker: under load every item runs with its own
    job and changes the state of its own worker.
    """
    wrong: list[Any] = []

    def check(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        item = slot_data["input"][0]
        if (get_current_job_id(), worker_state.worker_id) != (item["job"], item["worker"]):
            wrong.append(item)
        worker_state.increment("seen", "count")
        step.emit("output", **item)

    first, second = Step(check), Step(check)
    second.set_concurrency(4)
    with running(sqlite_database, chain(first, second)) as runtime:
        workers = {name: runtime.exec("f", worker_id=name) for name in ("v", "w")}
        for n in range(100):
            for worker in workers:
                data = {"job": f"{worker}{n}", "worker": worker}
                runtime.post("f", "s0", "input", data, worker, job_id=data["job"])
        assert runtime.wait_until_all_jobs_finished(30)
        assert [worker.get_routine_state("seen") for worker in workers.values()] == [{"count": 200}] * 2
    assert wrong == []


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
