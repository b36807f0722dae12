"""Shutdown: which work it finishes, what stays for the next start, and what a stopped runtime answers."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from routilux import Runtime, RuntimeShutDownError
from tests.flows.flows import GOOD, Gate, SeenNumbers, Step, chain, post, running
from tests.support.looking import rows


def test_a_stopped_runtime_says_so_and_can_be_stopped_again(database: str) -> None:
    registry = chain(Step(SeenNumbers()))
    runtime = Runtime(1, database=database, registry=registry)
    worker, job = runtime.post(*GOOD, {})
    assert runtime.shutdown() is True
    assert runtime.shutdown() is True
    for refused in (
        lambda: runtime.post(*GOOD, {}),
        lambda: runtime.post_many(*GOOD, [{}]),
        lambda: runtime.exec("f"),
        lambda: runtime.pause_worker("w"),
        lambda: runtime.cancel_job("j"),
        lambda: runtime.signal("j", "s0", "input", {}),
        lambda: runtime.wait_until_all_jobs_finished(1),
        lambda: runtime.cancel_all_jobs(),
    ):
        with pytest.raises(RuntimeShutDownError):
            refused()
    with Runtime(1, database=database, registry=registry) as again:
        assert again.get_job(job.job_id).status == "completed"
        assert again.exec("f", worker_id=worker.worker_id).get_routine_state("s0") == {"done": 1}


def test_a_waiting_shutdown_finishes_all_work_and_one_that_does_not_wait_leaves_it(database: str) -> None:
    seen = SeenNumbers()
    registry = chain(Step(lambda step, data, state: step.emit("output", **data["input"][0])), Step(seen))
    with running(database, registry) as runtime:
        runtime.pause_worker("w")
        runtime.post_many(*GOOD, [{"n": n} for n in range(50)], worker_id="w")
    assert seen.items == []
    runtime = Runtime(2, database=database, registry=registry)
    runtime.exec("f", worker_id="w")
    runtime.resume_worker("w")
    assert runtime.shutdown(wait=True) is True
    assert seen.items == list(range(50))
    assert rows(database, "SELECT count(*) FROM routilux_workers WHERE owner IS NOT NULL") == [(0,)]
    assert rows(database, "SELECT count(*) FROM routilux_runtimes WHERE state = 'alive'") == [(0,)]


def test_the_block_of_a_runtime_waits_for_its_jobs_unless_it_raises(database: str) -> None:
    seen = SeenNumbers()
    registry = chain(Step(seen))
    with Runtime(1, database=database, registry=registry) as runtime:
        runtime.post_many(*GOOD, [{"n": n} for n in range(20)])
    assert len(seen.items) == 20
    with pytest.raises(KeyError), Runtime(1, database=database, registry=registry) as runtime:
        runtime.post(*GOOD, {"n": 21}, delay=3600)
        raise KeyError("mine")


def test_a_shutdown_past_its_deadline_names_what_runs_and_the_work_goes_on_at_the_next_start(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    registry = chain(Step(gate))
    runtime = Runtime(1, database=database, registry=registry, lease=1.0)
    runtime.exec("f", worker_id="w")
    job = post(runtime, {"n": 1})
    assert gate.begun.wait(10)
    with caplog.at_level(logging.WARNING, logger="routilux"):
        assert runtime.shutdown(timeout=0.3) is False
    assert any("w/s0" in record.getMessage() for record in caplog.records)
    gate.go.set()
    with Runtime(1, database=database, registry=registry) as again:
        assert again.get_job(job.job_id).wait(20)
        assert again.get_job(job.job_id).status == "completed"
    assert gate.seen == [[1], [1]]
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("1",)]


def test_a_process_whose_logic_never_returns_can_exit(sqlite_database: str) -> None:
    program = (
        "import sys, threading\n"
        "from routilux import *\n"
        "step, begun = Routine(), threading.Event()\n"
        "step.add_slot('input')\n"
        "step.set_activation_policy(immediate_policy())\n"
        "step.set_logic(lambda slot_data, policy_message, worker_state:"
        " (begun.set(), threading.Event().wait()))\n"
        "flow = Flow('f')\n"
        "flow.add_routine(step, 's0')\n"
        "FlowRegistry.get_instance().register_by_name('f', flow)\n"
        "runtime = Runtime(1, database=sys.argv[1])\n"
        "runtime.post('f', 's0', 'input', {})\n"
        "assert begun.wait(20)\n"
        "print(runtime.shutdown(timeout=0.2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, sqlite_database],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
