"""Jobs: how they are listed, when they end, and what stays of them afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from routilux import JobEndedError, JobNotFoundError, Post, get_current_job
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from tests.flows.flows import GOOD, Seen, SeenNumbers, Step, chain, post, running, taking


def test_jobs_are_listed_newest_first_by_status_and_page_by_page(database: str) -> None:
    with running(database, chain(Step(Seen()))) as runtime:
        jobs = runtime.post_many(*GOOD, [{"n": n} for n in range(5)], worker_id="w")
        assert all(job.wait(10) for job in jobs)
        late = post(runtime, {}, delay=3600)
        ids = [late.job_id, *(job.job_id for job in reversed(jobs))]
        assert [job.job_id for job in runtime.list_jobs()] == ids
        assert [job.job_id for job in runtime.list_jobs(limit=2)] == ids[:2]
        assert [job.job_id for job in runtime.list_jobs(before=ids[1], limit=2)] == ids[2:4]
        assert [job.job_id for job in runtime.list_jobs(status="pending")] == [late.job_id]
        assert len(runtime.list_jobs(flow_name="f", worker_id="w", status="completed")) == 5
        assert runtime.list_jobs(flow_name="g") == []
        with pytest.raises(JobNotFoundError):
            runtime.list_jobs(before="nobody")


@pytest.mark.settled_row(22)
def test_row_22_a_job_stays_on_record_after_its_end(sqlite_database: str) -> None:
    """After its end a job is still found, with its status, data and metadata, also by the next runtime; it
    takes no more.
    """

    def keep(step: Step, slot_data: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.set_data("answer", 42)

    registry = chain(Step(keep))
    with running(sqlite_database, registry) as runtime:
        (job,) = runtime.post_many(
            "f", "s0", "input", [Post({}, job_id="mine", metadata={"k": 1})], worker_id="w"
        )
        assert job.wait(10)
    with running(sqlite_database, registry) as runtime:
        found = runtime.get_job("mine")
        assert found is not None
        assert (found.status, found.data, found.metadata) == ("completed", {"answer": 42}, {"k": 1})
        with pytest.raises(JobEndedError):
            found.set_data("answer", 43)


@pytest.mark.settled_row(24)
def test_row_24_a_job_completes_by_itself(sqlite_database: str) -> None:
    """A job completes by itself when nothing of it is left; while a message of it waits for a partner that
    does not come it stays `running`, until `complete` ends it.
    """
    join = taking("left", "right", logic=lambda left, right, **_: None, policy=all_slots_ready_policy())
    registry = chain(Step(lambda step, slot_data, worker_state: step.emit("output", n=1)))
    flow = registry.resolve("f")
    flow.add_routine(join, "join")
    flow.connect("s0", "output", "join", "left")
    flow.add_routine(taking("in", logic=lambda slot_data, **_: None, policy=immediate_policy()), "plain")
    with running(sqlite_database, registry) as runtime:
        half = post(runtime, {})
        whole = runtime.post("f", "plain", "in", {}, "w").job
        assert runtime.wait_until_all_workers_idle(10)
        assert (half.status, whole.status) == ("running", "completed")
        half.complete("failed", error="nobody came")
        assert (half.status, half.error) == ("failed", "nobody came")


def test_a_job_can_be_ended_by_hand(database: str) -> None:
    seen = SeenNumbers()

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
