"""Pause, resume and cancel, for workers and for jobs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from routilux import (
    ErrorHandler,
    Flow,
    JobEndedError,
    JobFailedError,
    Runtime,
    WorkerEndedError,
    get_current_job,
)
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.core.mailbox import WINDOW
from routilux.engine.commands import PauseJob, ResumeJob, Signal
from routilux.engine.inputs import CommandIn
from tests.flows.flows import (
    GOOD,
    Gate,
    SeenNumbers,
    Step,
    chain,
    count,
    flow_of,
    ignore,
    post,
    running,
    taking,
)
from tests.support.inside_runtime import between_commits, parts, worker
from tests.support.looking import column, rows
from tests.support.waiting import eventually

# workers


def test_pausing_a_worker_lets_what_runs_finish_and_starts_nothing_new(database: str) -> None:
    gate, seen = Gate(lambda step: step.emit("output", n=1)), SeenNumbers()
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
    begun, go, seen = threading.Event(), threading.Event(), SeenNumbers()

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
    registry = chain(Step(gate), Step(SeenNumbers()))
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


@pytest.mark.settled_row(36)
def test_row_36_a_paused_worker_stays_paused(sqlite_database: str) -> None:
    """A paused worker stays paused, takes posts and runs none of them, across a restart too, until it is
    resumed.
    """
    registry = chain(Step(ignore))
    with running(sqlite_database, registry) as runtime:
        worker = runtime.exec("f", worker_id="w")
        runtime.pause_worker("w")
        job = post(runtime, {})
        assert runtime.wait_until_all_workers_idle(10)
        assert (worker.status, job.status) == ("paused", "pending")
    with running(sqlite_database, registry) as runtime:
        found, again = runtime.get_job(job.job_id), runtime.exec("f", worker_id="w")
        assert found is not None
        assert (again.status, found.status) == ("paused", "pending")
        runtime.resume_worker("w")
        assert found.wait(10)
        assert found.status == "completed"


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


# jobs


def test_a_paused_job_waits_over_a_restart_while_others_pass(database: str) -> None:
    seen = SeenNumbers()
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
    gate, seen = Gate(lambda step: step.emit("output", n=7)), SeenNumbers()
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
    seen = SeenNumbers()
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

    gate, seen = Gate(ask), SeenNumbers()
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
    with running(database, chain(Step(SeenNumbers()))) as runtime:
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


@pytest.mark.settled_row(35)
def test_row_35_workers_and_jobs_are_paused_resumed_and_cancelled(sqlite_database: str) -> None:
    """Pause, resume and cancel are calls of the runtime, for a worker or for one job; those of the flow are
    gone and name them.
    """
    gate, begun, cancelled = threading.Event(), threading.Event(), []

    def hold(step: Step, slot_data: Any, worker_state: Any) -> None:
        if slot_data["input"][0].get("hold"):
            begun.set()
            assert gate.wait(20)
            job = get_current_job()
            assert job is not None
            cancelled.append(job.is_cancelled())

    with running(sqlite_database, chain(Step(hold))) as runtime:
        runtime.pause_worker("w")
        first, second, third = post(runtime, {}), post(runtime, {}), post(runtime, {"hold": True})
        runtime.pause_job(first.job_id)
        runtime.cancel_job(second.job_id)
        runtime.resume_worker("w")
        assert begun.wait(10)
        runtime.cancel_job(third.job_id)
        gate.set()
        assert runtime.wait_until_all_workers_idle(10)
        assert [job.status for job in (first, second, third)] == ["paused", "cancelled", "cancelled"]
        runtime.resume_job(first.job_id)
        assert first.wait(10)
        assert first.status == "completed"
    assert cancelled == [True]
    for name in ("pause", "resume", "cancel"):
        with pytest.raises(AttributeError, match=rf"flow\.{name} is gone: use runtime\.{name}_worker"):
            getattr(Flow("f"), name)
