"""What waits for a time: retries and delayed posts.

Rows are the truth, so restarts and dead alarms cost nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from routilux import Client, ErrorHandler, FlowRegistry, Post, get_current_job_id, testing
from routilux.activation_policies import batch_size_policy
from tests.flows.flows import Step, chain, post, running
from tests.support.inside_runtime import between_commits, engine, parts, worker
from tests.support.looking import column, rows
from tests.support.waiting import eventually

MANY = 20_000
HOUR = timedelta(hours=1)


class FailsFirst:
    """Logic that raises at the first call for each number, and notes when it was called."""

    def __init__(self) -> None:
        self.calls: Counter[Any] = Counter()
        self.begun: list[float] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.begun.append(time.time())
        n = slot_data["input"][0].get("n")
        self.calls[n] += 1
        if self.calls[n] == 1:
            raise ValueError("not yet")
        worker_state.increment("s0", "done")


def retrying(logic: Any, delay: float | timedelta) -> FlowRegistry:
    return chain(Step(logic, handler=ErrorHandler("retry", retry_delay=delay, retry_backoff=1.0)))


def change(database: str, statement: str, **parameters: Any) -> None:
    """Straight into the database, while nothing runs on it."""
    with create_engine(database, poolclass=NullPool).begin() as connection:
        connection.execute(text(statement), parameters)


def parked_count(database: str) -> int:
    return int(rows(database, "SELECT count(*) FROM routilux_parked")[0][0])


def park_many(database: str, count: int, *, due_at: int) -> None:
    """Jobs `job-1`, `job-2`, … of the worker `w`, each with a message `{"n": …}` that waits for its second
    attempt.
    """
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
    of = {
        "count": count,
        "worker": rows(database, "SELECT key FROM routilux_workers WHERE worker_id = 'w'")[0][0],
    }
    change(
        database,
        f"{series} INSERT INTO routilux_jobs (worker, job, job_id, flow, status, open_count, created_at,"
        " started_at) SELECT :worker, i, 'job-' || i, 'f', 'running', 1, 1, 1 FROM n",
        **of,
    )
    change(
        database,
        f"{series} INSERT INTO routilux_messages (worker, seq, job, routine, slot, payload, status,"
        " created_at)"
        """ SELECT :worker, i, i, 's0', 'input', '{"n":' || i || '}', 'parked', 1 FROM n""",
        **of,
    )
    change(
        database,
        f"{series} INSERT INTO routilux_parked (worker, seq, job, routine, reason, due_at, seqs, attempt,"
        " deaths, parked_at) SELECT :worker, i, i, 's0', 'retry', :due_at, '[' || i || ']', 1, 0, 1 FROM n",
        **of,
        due_at=due_at,
    )
    change(database, "UPDATE routilux_workers SET next_seq = :count + 1 WHERE key = :worker", **of)


def now_us() -> int:
    return time.time_ns() // 1000


# retries


def test_a_retry_fires_once_and_not_early_though_the_runtime_was_restarted_half_way(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, 1.0)
    with running(database, registry) as runtime:
        job_id = post(runtime, {}).job_id
        eventually(lambda: parked_count(database) == 1)
        assert not runtime.get_job(job_id).wait(0.5)
    with running(database, registry) as runtime:
        assert runtime.get_job(job_id).wait(15)
        assert runtime.get_job(job_id).status == "completed"
    assert len(logic.begun) == 2
    assert logic.begun[1] - logic.begun[0] >= 1.0


@pytest.mark.parametrize("wrong_by_s", [-3600.0, 3600.0])
def test_on_postgres_a_retry_is_due_by_the_servers_clock_though_the_hosts_is_wrong(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, wrong_by_s: float
) -> None:
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + round(wrong_by_s * 1e9))
    logic = FailsFirst()
    registry = retrying(logic, 1.0)
    with running(postgres_database, registry) as runtime, Client(postgres_database) as client:
        job_id = post(runtime, {}).job_id
        assert runtime.get_job(job_id).wait(20)
        later = client.post("f", "s0", "input", {}, "w", delay=0.5).job
        assert later.wait(20)
    assert len(logic.begun) == 3
    assert logic.begun[1] - logic.begun[0] >= 1.0
    assert (
        abs(column(postgres_database, "SELECT max(created_at) FROM routilux_jobs")[0] - right() // 1000)
        < 60e6
    )


def test_the_engine_sleeps_until_what_is_due_next(database: str) -> None:
    with running(database, retrying(FailsFirst(), 1.0)) as runtime:

        def pause() -> float:
            parts(runtime).redelivery.expect(parts(runtime).clock.now_us() + 7_000)
            return engine(runtime).pause_s()

        assert between_commits(runtime, pause) <= 0.007


def test_on_postgres_a_look_before_the_server_is_there_is_made_again_when_it_is(
    postgres_database: str,
) -> None:
    with running(postgres_database, retrying(FailsFirst(), 1.0)) as runtime:
        clock, due = parts(runtime).clock, parts(runtime).redelivery
        job = runtime.post("f", "s0", "input", {}, "w", delay=HOUR).job

        def early() -> tuple[float | None, float | None]:
            clock._ahead_us += 2 * HOUR // timedelta(microseconds=1)
            ahead = due.in_s(clock.now_us())
            due.poll()
            return ahead, due.in_s(clock.now_us())

        ahead, left = between_commits(runtime, early)
        assert ahead == 0.0
        assert left is not None
        assert 3540 < left <= 3600
        assert job.status == "pending"


def test_a_retry_that_came_due_while_nothing_ran_fires_at_the_start(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, 0.2)
    with running(database, registry) as runtime:
        job_id = post(runtime, {}).job_id
        eventually(lambda: logic.begun)
    due_at = max(column(database, "SELECT due_at FROM routilux_parked"), default=0)
    eventually(lambda: now_us() > due_at)
    with running(database, registry) as runtime:
        assert runtime.get_job(job_id).wait(15)
    assert len(logic.begun) == 2


def test_five_hundred_retries_due_at_the_same_instant_all_fire_each_once(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, HOUR)
    with running(database, registry) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(500)], worker_id="w")
        eventually(lambda: parked_count(database) == 500, timeout=30)
    change(database, "UPDATE routilux_parked SET due_at = :due_at", due_at=now_us() + 500_000)
    with running(database, registry) as runtime:
        assert runtime.wait_until_all_jobs_finished(60)
        assert {runtime.get_job(job.job_id).status for job in jobs[::50]} == {"completed"}
    assert set(logic.calls.values()) == {2}
    history = "SELECT attempt, status, count(*) FROM routilux_activations GROUP BY attempt, status ORDER BY 1"
    assert rows(database, history) == [(1, "retrying", 500), (2, "completed", 500)]
    assert parked_count(database) == 0


def test_a_worker_with_many_parked_retries_starts_without_them_in_memory(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, HOUR)
    with running(database, registry):
        pass
    park_many(database, MANY, due_at=now_us() + 3_600_000_000)
    change(database, "UPDATE routilux_parked SET due_at = 1 WHERE seq = 777")
    with running(database, registry) as runtime:
        job = runtime.get_job("job-777")
        while not job.wait(0.1):  # its first call here fails, and it is parked again
            if logic.calls[777]:
                break
        eventually(lambda: rows(database, "SELECT count(*) FROM routilux_activations") == [(1,)])
        (cell,) = parts(runtime).workers
        assert cell.timed_count == MANY
        assert between_commits(runtime, lambda: (cell.rerun_count, len(cell.jobs))) in ((0, 0), (0, 1))
        fresh = post(runtime, {"n": 0})
        eventually(lambda: logic.calls[0])
        eventually(lambda: fresh.status == "running")  # once its failure is committed
        assert runtime.get_job("job-5").status == "running"
    assert logic.calls == {777: 1, 0: 1}


def test_many_due_retries_of_a_paused_worker_hold_up_no_other_worker(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, 0.1)
    with running(database, registry) as runtime:
        runtime.pause_worker("w")
    park_many(database, 2500, due_at=1)
    with running(database, registry) as runtime:
        runtime.exec("f", worker_id="other")
        cell = worker(runtime, "w")
        eventually(lambda: cell.rerun_count >= 1000, timeout=30)
        job = runtime.post("f", "s0", "input", {"n": 0}, "other").job
        assert job.wait(20)
        assert cell.rerun_count < 2000
        runtime.cancel_worker("w")
    assert logic.calls == {0: 2}


def test_a_retry_of_a_job_that_was_cancelled_never_fires(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, 0.3)
    with running(database, registry) as runtime:
        job = post(runtime, {})
        eventually(lambda: logic.begun)
        job.cancel("enough")
        assert job.wait(10)
        other = post(runtime, {"n": 1}, delay=0.6)
        assert not other.wait(0.1)
    with running(database, registry) as runtime:
        assert runtime.get_job(other.job_id).wait(10)
    assert logic.calls == {None: 1, 1: 2}
    assert parked_count(database) == 0


def test_what_comes_due_while_its_worker_is_paused_waits_for_the_resume(database: str) -> None:
    logic = FailsFirst()
    with running(database, retrying(logic, 1.0)) as runtime:
        retry = post(runtime, {"n": 1})
        eventually(lambda: parked_count(database) == 1)
        runtime.pause_worker("w")
        delayed = post(runtime, {"n": 2}, delay=0.1)
        in_line = "SELECT count(*) FROM routilux_parked WHERE line IS NOT NULL"
        eventually(lambda: rows(database, in_line) == [(1,)] and parked_count(database) == 1)
        assert logic.calls == {1: 1}
        runtime.resume_worker("w")
        assert retry.wait(10)
        assert delayed.wait(10)
    assert logic.calls == {1: 2, 2: 2}


def test_what_comes_due_while_its_job_is_paused_waits_for_the_resume(database: str) -> None:
    logic = FailsFirst()
    registry = retrying(logic, 1.0)  # long enough to pause both before they come due
    with running(database, registry) as runtime:
        retry = post(runtime, {"n": 1})
        eventually(lambda: parked_count(database) == 1)
        delayed = post(runtime, {"n": 2}, delay=1.0)
        runtime.pause_job(retry.job_id)
        runtime.pause_job(delayed.job_id)
        other = post(runtime, {"n": 3}, delay=1.3)
        assert other.wait(10)  # so the two have come due
        assert [retry.status, delayed.status] == ["paused", "paused"]
        assert logic.calls == {1: 1, 3: 2}
    with running(database, registry) as runtime:
        assert not runtime.get_job(retry.job_id).wait(0.1)
        runtime.resume_job(retry.job_id)
        runtime.resume_job(delayed.job_id)
        assert runtime.get_job(retry.job_id).wait(10)
        assert runtime.get_job(delayed.job_id).wait(10)
    assert logic.calls == {1: 2, 2: 2, 3: 2}


# delayed posts


def test_delayed_posts_are_pending_and_come_when_they_are_due_over_a_restart(database: str) -> None:
    order: list[int] = []

    def note(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        order.append(slot_data["input"][0]["n"])
        worker_state.increment(str(get_current_job_id()), "calls")

    registry = chain(Step(note))
    begun = datetime.now(UTC)
    with running(database, registry) as runtime:
        jobs = [
            post(runtime, {"n": 3}, delay=timedelta(seconds=0.8)),
            post(runtime, {"n": 2}, at=begun + timedelta(seconds=0.6)),
            post(runtime, {"n": 1}, at=(begun + timedelta(seconds=0.4)).astimezone(timezone(-7 * HOUR))),
            *runtime.post_many("f", "s0", "input", [Post({"n": 4}, delay=1.0)], worker_id="w"),
        ]
        far = post(runtime, {"n": 5}, delay=HOUR)
        now = [post(runtime, {"n": 0}, at=begun - HOUR), post(runtime, {"n": 0}, delay=0)]
        assert all(job.wait(10) for job in now)
        assert far.status == "pending"
    with running(database, registry) as runtime:
        assert all(runtime.get_job(job.job_id).wait(15) for job in jobs)
        assert runtime.get_job(far.job_id).status == "pending"
        assert runtime.wait_until_all_workers_idle(10)
        assert not runtime.wait_until_all_jobs_finished(0.05)
        assert all(
            set(state.values()) == {1} for state in runtime.exec("f", worker_id="w").routine_states.values()
        )
        for job, asked in zip(jobs, (0.8, 0.6, 0.4, 1.0), strict=True):
            assert runtime.get_job(job.job_id).started_at >= begun + timedelta(seconds=asked)
    assert sorted(order) == [0, 0, 1, 2, 3, 4]


def test_what_waited_comes_back_to_the_end_of_the_line(database: str) -> None:
    order: list[int] = []

    def note(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        order.append(slot_data["input"][0]["n"])

    with running(database, chain(Step(note))) as runtime:
        first = post(runtime, {"n": 1}, delay=1.0)
        runtime.pause_worker("w")
        rest = [post(runtime, {"n": n}) for n in (2, 3)]
        eventually(lambda: parked_count(database) == 0)
        last = post(runtime, {"n": 4})
        runtime.resume_worker("w")
        assert all(job.wait(10) for job in [first, *rest, last])
    assert order == [2, 3, 1, 4]


@pytest.mark.parametrize("ends", [0, 1])
def test_a_job_that_ends_leaves_the_rest_of_its_batch_in_line(ends: int) -> None:
    logic = FailsFirst()
    step = Step(logic, policy=batch_size_policy(2), handler=ErrorHandler("retry", retry_delay=5))
    with testing.runtime(registry=chain(step)) as runtime:
        runtime.exec("f", worker_id="w")
        jobs = [post(runtime, {"n": n}) for n in (1, 2)]
        runtime.run_until_idle()
        runtime.pause_worker("w")
        runtime.clock.advance(6)
        runtime.run_until_idle()  # it is due, and waits in the line of a paused worker
        jobs[ends].cancel()
        runtime.resume_worker("w")
        runtime.run_until_idle(skip_time=True)
        statuses = [job.status for job in jobs]
    assert statuses == [["cancelled", "completed"], ["completed", "cancelled"]][ends]
