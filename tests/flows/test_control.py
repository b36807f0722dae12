"""Pause, resume, cancel, statuses, waits and shutdown; and the calls that logic must not make."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from routilux import (
    CalledInLogicError,
    ConfigReadOnlyError,
    ErrorHandler,
    Flow,
    FlowRegistry,
    JobEndedError,
    JobFailedError,
    Runtime,
    RuntimeShutDownError,
    WorkerEndedError,
    get_current_job,
    get_current_job_id,
    get_current_worker_state,
    get_runtime_instance,
)
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.core.mailbox import WINDOW
from routilux.engine.commands import PauseJob, ResumeJob, Signal
from routilux.engine.inputs import CommandIn
from routilux.ownership import handover
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.inside_runtime import between_commits, parts, worker
from tests.support.looking import column, rows
from tests.support.waiting import eventually

GOOD = ("f", "s0", "input")


class Gate:
    """Logic that says when it has begun and goes on when it is let; what else it does is given."""

    def __init__(self, then: Any = None) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.seen: list[Any] = []
        self.then = then

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.seen.append([item.get("n") for item in slot_data["input"]])
        self.begun.set()
        assert self.go.wait(30)
        worker_state.increment("s0", "done")
        if self.then is not None:
            self.then(step)


class Seen:
    def __init__(self) -> None:
        self.items: list[Any] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.items += [item.get("n") for item in slot_data["input"]]
        worker_state.increment("s0", "done")


# workers


def test_pausing_a_worker_lets_what_runs_finish_and_starts_nothing_new(database: str) -> None:
    gate, seen = Gate(lambda step: step.emit("output", n=1)), Seen()
    registry = chain(Step(gate), Step(seen))
    with running(database, registry) as runtime:
        worker = runtime.exec("f", worker_id="w")
        first = post(runtime, {"n": 1})
        assert gate.begun.wait(10)
        assert worker.status == "running"
        runtime.pause_worker("w", "lunch")
        second = post(runtime, {"n": 2})
        gate.go.set()
        eventually(lambda: worker.get_routine_state("s0") == {"done": 1})
        assert (worker.status, first.status, second.status) == ("paused", "running", "pending")
        assert rows(database, "SELECT status, reason FROM routilux_workers") == [("paused", "lunch")]
        assert not runtime.wait_until_all_jobs_finished(0.1)
        assert runtime.wait_until_all_workers_idle(5)  # nothing can run now
    with running(database, registry) as runtime:  # stays paused
        worker = runtime.exec("f", worker_id="w")
        third = post(runtime, {"n": 3})
        assert not third.wait(0.2)
        assert (worker.status, gate.seen, seen.items) == ("paused", [[1]], [])
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(10)
        assert worker.status == "idle"
    assert (gate.seen, seen.items) == ([[1], [2], [3]], [1, 1, 1])


def _takes_all(slots: Any, worker_state: Any) -> Any:
    return bool(slots["input"].consume_all_new())


@pytest.mark.parametrize("policy", [immediate_policy(), _takes_all], ids=["immediate", "custom"])
def test_what_was_handed_out_and_has_not_begun_does_not_begin_in_a_pause(database: str, policy: Any) -> None:
    begun, go, seen = threading.Event(), threading.Event(), Seen()

    async def holds_the_loop(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        begun.set()
        assert go.wait(30)

    async def notes(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        seen.items.append(1)

    registry = flow_of(
        holds=taking("input", logic=holds_the_loop, policy=immediate_policy()),
        notes=taking("input", logic=notes, policy=policy),
    )
    with running(database, registry) as runtime:
        held = runtime.post("f", "holds", "input", {}, "w").job
        assert begun.wait(10)
        waiting = runtime.post("f", "notes", "input", {}, "w").job
        runtime.pause_worker("w")
        go.set()
        assert held.wait(10)
        assert not waiting.wait(0.3)
        assert seen.items == []
        runtime.resume_worker("w")
        assert waiting.wait(10)
    assert seen.items == [1]


def test_cancelling_a_worker_ends_its_jobs_and_discards_what_still_runs(database: str) -> None:
    gate = Gate(lambda step: step.emit("output", n=1))
    registry = chain(Step(gate), Step(Seen()))
    with running(database, registry) as runtime:
        worker = runtime.exec("f", worker_id="w")
        jobs = [post(runtime, {"n": 1}), post(runtime, {"n": 2}), post(runtime, {"n": 3}, delay=3600)]
        assert gate.begun.wait(10)
        runtime.cancel_worker("w", "over")
        assert all(job.wait(10) for job in jobs)
        assert [(job.status, job.error) for job in jobs] == [("cancelled", "over")] * 3
        assert all(job.completed_at is not None for job in jobs)
        gate.go.set()
        eventually(lambda: worker.status == "cancelled")
        assert runtime.wait_until_all_jobs_finished(10)
        for refused in (
            lambda: post(runtime, {}),
            lambda: runtime.exec("f", worker_id="w"),
            lambda: runtime.pause_worker("w"),
            lambda: runtime.resume_worker("w"),
        ):
            with pytest.raises(WorkerEndedError):
                refused()
    with Runtime(1, database=database, registry=registry) as runtime:
        assert runtime.get_job(jobs[1].job_id).status == "cancelled"
    assert set(column(database, "SELECT status FROM routilux_messages")) == {"cancelled"}
    assert rows(database, "SELECT job, status FROM routilux_activations") == [(1, "discarded")]
    assert rows(database, "SELECT owner, reason FROM routilux_workers") == [(None, "over")]
    assert set(column(database, "SELECT waiting FROM routilux_slots")) == {0}
    assert rows(database, "SELECT value FROM routilux_worker_state") == []
    assert rows(database, "SELECT count(*) FROM routilux_parked") == [(0,)]
    assert gate.seen == [[1]]


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


# jobs


def test_a_paused_job_waits_over_a_restart_while_others_pass(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    with running(database, registry) as runtime:
        runtime.pause_worker("w")
        first, second = post(runtime, {"n": 1}), post(runtime, {"n": 2})
        runtime.pause_job(first.job_id)
        assert (first.status, first.is_paused(), first.is_running()) == ("paused", True, False)
    with running(database, registry) as runtime:  # its message is still in line
        runtime.resume_worker("w")
        assert runtime.get_job(second.job_id).wait(10)
        third = post(runtime, {"n": 3})
        assert third.wait(10)
        job = runtime.get_job(first.job_id)
        assert job.status == "paused"
        assert not runtime.wait_until_all_jobs_finished(0.1)
    with running(database, registry) as runtime:  # it is parked now
        runtime.resume_job(first.job_id)
        assert runtime.get_job(first.job_id).wait(10)
        assert runtime.wait_until_all_jobs_finished(10)
        assert runtime.get_job(first.job_id).status == "completed"
    assert seen.items == [2, 3, 1]


def test_what_a_paused_job_emits_waits_too(database: str) -> None:
    gate, seen = Gate(lambda step: step.emit("output", n=7)), Seen()
    with running(database, chain(Step(gate), Step(seen))) as runtime:
        job = post(runtime, {})
        assert gate.begun.wait(10)
        runtime.pause_job(job.job_id)
        gate.go.set()
        eventually(lambda: column(database, "SELECT reason FROM routilux_parked") == ["paused"])
        runtime.signal(job.job_id, "s1", "input", {"n": 8})
        other = runtime.post("f", "s1", "input", {"n": 9}, "w").job
        assert other.wait(10)
        assert (job.status, seen.items) == ("paused", [9])
        runtime.resume_job(job.job_id)
        assert job.wait(10)
        assert (job.status, sorted(seen.items)) == ("completed", [7, 8, 9])


def test_two_that_resume_a_job_at_once_bring_its_messages_back_once(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    with running(database, registry) as runtime:
        job = post(runtime, {"n": 1}, delay=1.0)
        runtime.pause_job(job.job_id)
        eventually(lambda: column(database, "SELECT reason FROM routilux_parked") == ["paused"])

        def both() -> None:  # between two commits, so that they go into one
            for _ in range(2):
                parts(runtime).inputs.put(CommandIn(ResumeJob("w", job.job_id, "")))

        between_commits(runtime, both)
        assert job.wait(10)
        assert runtime.wait_until_all_jobs_finished(10)
        assert rows(database, "SELECT status, open_count FROM routilux_jobs") == [("completed", 0)]
    assert seen.items == [1]


def test_a_batch_that_failed_waits_while_any_of_its_jobs_is_paused(database: str) -> None:
    seen: list[Any] = []

    def first_fails(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        seen.append([item["n"] for item in slot_data["input"]])
        if len(seen) == 1:
            raise ValueError("not yet")

    handler = ErrorHandler("retry", retry_delay=1.0)
    registry = chain(Step(first_fails, policy=batch_size_policy(2), handler=handler))
    with running(database, registry) as runtime:
        one, two = runtime.post_many(*GOOD, [{"n": 1}, {"n": 2}], worker_id="w")
        eventually(lambda: column(database, "SELECT reason FROM routilux_parked") == ["retry"])
        runtime.pause_job(two.job_id)
        eventually(lambda: column(database, "SELECT reason FROM routilux_parked") == ["paused"])
    with running(database, registry) as runtime:
        assert [runtime.get_job(job.job_id).status for job in (one, two)] == ["running", "paused"]
        runtime.resume_job(two.job_id)
        assert all(runtime.get_job(job.job_id).wait(10) for job in (one, two))
    assert seen == [[1, 2], [1, 2]]


def test_a_cancelled_job_discards_what_still_runs_and_logic_can_ask(database: str) -> None:
    asked: list[bool] = []

    def ask(step: Step) -> None:
        job = get_current_job()
        assert job is not None
        asked.append(job.is_cancelled())
        step.emit("output", n=1)

    gate, seen = Gate(ask), Seen()
    with running(database, chain(Step(gate), Step(seen))) as runtime:
        job = post(runtime, {"n": 1})
        runtime.signal(job.job_id, "s1", "input", {"n": 5}) if gate.begun.wait(10) else None
        runtime.cancel_job(job.job_id, "not needed")
        assert job.wait(10)
        assert (job.status, job.error, job.is_cancelled()) == ("cancelled", "not needed", True)
        with pytest.raises(JobFailedError, match="not needed"):
            job.result(1)
        gate.go.set()
        statuses = "SELECT status FROM routilux_activations WHERE routine = 's0'"
        eventually(lambda: column(database, statuses) == ["discarded"])
        for refused in (
            job.cancel,
            lambda: runtime.pause_job(job.job_id),
            lambda: runtime.resume_job(job.job_id),
        ):
            with pytest.raises(JobEndedError):
                refused()
        assert runtime.exec("f", worker_id="w").get_routine_state("s0") in (None, {"done": 1})
    assert asked == [True]
    assert 1 not in seen.items


def test_what_a_cancelled_job_had_waiting_in_memory_in_runs_and_on_disk_waits_no_more(database: str) -> None:
    def spread(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        for n in range(slot_data["input"][0]["n"]):
            step.emit("output", n=n)

    gate = Gate()
    with running(database, chain(Step(spread), Step(gate))) as runtime:
        many, few = post(runtime, {"n": WINDOW + 1000}), post(runtime, {"n": 2})
        assert gate.begun.wait(10)
        many.cancel()
        assert many.wait(10)
        gate.go.set()
        assert runtime.wait_until_all_jobs_finished(20)
        assert (many.status, few.status) == ("cancelled", "completed")
        assert worker(runtime, "w").waiting == 0
    left = rows(database, "SELECT status, count(*) FROM routilux_messages GROUP BY 1 ORDER BY 1")
    assert left == [("cancelled", WINDOW + 1000), ("consumed", 4)]


def test_a_job_that_has_just_ended_is_not_paused_and_takes_no_signal(database: str) -> None:
    gate = Gate()
    with running(database, chain(Step(gate))) as runtime:
        job = post(runtime, {})
        assert gate.begun.wait(10)
        asked = [
            CommandIn(PauseJob("w", job.job_id, "")),
            CommandIn(Signal("w", job.job_id, "s0", "input", "{}")),
        ]

        def ask() -> None:  # between two commits: what the logic leaves and these go into one
            gate.go.set()
            inputs = parts(runtime).inputs
            eventually(lambda: len(inputs) == 2)  # the outcome, and that the run has ended
            for entry in asked:
                inputs.put(entry)

        between_commits(runtime, ask)
        assert job.wait(10)
        assert all(entry.receipt.wait(10) for entry in asked)
        assert job.status == "completed"
    assert [type(entry.receipt.error) for entry in asked] == [JobEndedError] * 2


def test_all_jobs_of_a_runtime_are_cancelled_at_once(database: str) -> None:
    with running(database, chain(Step(Seen()))) as runtime:
        runtime.pause_worker("w")
        runtime.exec("f", worker_id="v")
        done = post(runtime, {"n": 0}, delay=3600)
        done.complete()
        jobs = [
            *runtime.post_many(*GOOD, [{"n": n} for n in range(20)], worker_id="w"),
            post(runtime, {}, delay=3600),
            runtime.post(*GOOD, {}, "v", delay=3600).job,
        ]
        runtime.pause_job(jobs[3].job_id)
        assert runtime.cancel_all_jobs("enough") == 22
        assert {(job.status, job.error) for job in jobs} == {("cancelled", "enough")}
        assert done.status == "completed"
        assert runtime.cancel_all_jobs() == 0
        assert runtime.wait_until_all_jobs_finished(5)


def test_a_job_can_be_ended_by_hand(database: str) -> None:
    seen = Seen()

    def end(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        step.emit("output", n=1)
        job.complete("failed", error="as asked")

    with running(database, chain(Step(end), Step(seen))) as runtime:
        inside = post(runtime, {})
        assert inside.wait(10)
        assert (inside.status, inside.error) == ("failed", "as asked")
        outside = post(runtime, {}, delay=3600)
        outside.set_data("k", [1])
        outside.increment("n", 2)
        outside.complete(result={"by": "hand"})
        assert (outside.status, outside.result(1)) == ("completed", {"by": "hand"})
        assert outside.data == {"k": [1], "n": 2}
        assert (outside.get_data("k"), outside.get_data("x", "none")) == ([1], "none")
        with pytest.raises(JobEndedError):
            outside.complete()
        with pytest.raises(ValueError, match="completed, failed or cancelled"):
            post(runtime, {}, delay=3600).complete("done")
    assert seen.items == []


# waiting


def test_waits_end_at_the_end_or_at_their_timeout(database: str) -> None:
    gate = Gate()
    with running(database, chain(Step(gate))) as runtime:
        assert runtime.wait_until_all_jobs_finished(5)
        assert runtime.wait_until_all_workers_idle(5)
        job = post(runtime, {})
        assert gate.begun.wait(10)
        for wait in (job.wait, runtime.wait_until_all_jobs_finished, runtime.wait_until_all_workers_idle):
            began = time.monotonic()
            assert wait(0.1) is False
            assert time.monotonic() - began >= 0.1
        assert job.wait(0) is False
        with pytest.raises(TimeoutError, match=r"has not ended after 0\.05 s"):
            job.result(0.05)
        gate.go.set()
        assert runtime.wait_until_all_jobs_finished() is True
        assert (job.wait(0), job.result(0)) == (True, None)
        late = post(runtime, {}, delay=3600)
        assert runtime.wait_until_all_workers_idle(5) is True
        assert runtime.wait_until_all_jobs_finished(0.05) is False
        late.cancel()


def test_a_wait_covers_what_was_accepted_just_before(database: str) -> None:
    seen = Seen()
    with running(
        database, chain(Step(lambda step, data, state: step.emit("output", n=1)), Step(seen))
    ) as runtime:
        for n in range(1, 11):
            post(runtime, {})
            assert runtime.wait_until_all_jobs_finished(10)
            assert len(seen.items) == n


# shutdown


def test_a_stopped_runtime_says_so_and_can_be_stopped_again(database: str) -> None:
    registry = chain(Step(Seen()))
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
    seen = Seen()
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
    seen = Seen()
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


# inside logic


def test_calls_that_wait_for_the_engine_raise_inside_logic_and_others_work(database: str) -> None:
    told: dict[str, Any] = {}
    step = Step(lambda *_: None)
    step.set_config(unit="kg")

    def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        assert runtime is get_runtime_instance()
        calls = {
            "shutdown": runtime.shutdown,
            "jobs": lambda: runtime.wait_until_all_jobs_finished(1),
            "idle": lambda: runtime.wait_until_all_workers_idle(1),
            "exec": lambda: runtime.exec("f"),
            "post": lambda: runtime.post(*GOOD, {}, timeout=1),
            "post_many": lambda: runtime.post_many(*GOOD, [{}], timeout=1),
            "wait": lambda: job.wait(1),
            "result": lambda: job.result(1),
            "other": lambda: runtime.get_job(job.job_id).wait(1),
            "config": lambda: step.set_config(unit="g"),
        }
        for name, call in calls.items():
            try:
                call()
            except (CalledInLogicError, ConfigReadOnlyError) as error:
                told[name] = type(error)
        context = step.get_execution_context()
        told["context"] = (context.flow_id, context.routine_id, context.job_context.job_id)
        told["ids"] = (get_current_job_id(), get_current_worker_state().worker_id, worker_state.status)
        if "more" in slot_data["input"][0]:
            told["posted"] = runtime.post(*GOOD, {}, "w").job_id

    step.set_logic(logic)
    with running(database, chain(step)) as runtime:
        job = post(runtime, {"more": True})
        assert job.wait(10)
        assert job.status == "completed", job.error
        assert runtime.wait_until_all_jobs_finished(10)
        assert runtime.get_job(told["posted"]).status == "completed"
        posted = told.pop("posted")
        assert told.pop("ids") == (posted, "w", "running")
        assert told.pop("context") == ("f", "s0", posted)
        assert told.pop("config") is ConfigReadOnlyError
        assert set(told.values()) == {CalledInLogicError}
        assert len(told) == 9
        assert step.get_config("unit") == "kg"
        step.set_config(unit="g")
    assert (get_current_job(), get_current_job_id(), get_current_worker_state()) == (None, None, None)


# facts


def test_a_subscriber_is_told_of_what_has_happened(database: str) -> None:
    told: list[Any] = []
    ends: list[Any] = []
    with running(database, chain(Step(Seen()))) as runtime:
        runtime.on("activation.committed", lambda fact: told.append(fact.fields["status"]))
        runtime.on("job.ended", lambda fact: ends.append((fact.fields["job_id"], fact.fields["status"])))
        runtime.on("job.ended", lambda fact: 1 / 0)  # its own trouble
        jobs = [post(runtime, {}), post(runtime, {})]
        assert all(job.wait(10) for job in jobs)
        eventually(lambda: ends == [(job.job_id, "completed") for job in jobs])
    assert told == ["completed", "completed"]


def test_two_workers_of_one_flow_share_nothing(database: str) -> None:
    registry = FlowRegistry()
    flow = Flow("f")
    seen = Seen()
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
