"""Jobs that another process runs for this one: remembered while they are open, and not for ever."""

from __future__ import annotations

import threading

import pytest

from routilux import ErrorHandler, ErrorStrategy
from routilux.activation_policies import batch_size_policy
from routilux.runtime import job_ends, waiting
from tests.flows.flows import Step, chain, post, running
from tests.support.inside_runtime import owns, parts, posted_elsewhere


def test_a_program_that_posts_and_never_waits_does_not_remember_every_job(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_ends, "MOST_ELSEWHERE", 10)
    monkeypatch.setattr(waiting, "PERIOD_S", 0.02)
    registry = chain(Step(lambda *_: None))
    with running(database, registry) as owner, running(database, registry) as other:
        assert owns(owner, "w")
        for n in range(60):
            job = post(other, {"n": n})
            assert owner.get_job(str(job.job_id))
            assert job.wait(10)
        assert 1 <= len(posted_elsewhere(other)) <= 11
        assert other.wait_until_all_jobs_finished(10)
        assert not posted_elsewhere(other)


@pytest.mark.parametrize("is_retried", [False, True], ids=["in a slot", "parked"])
def test_a_worker_started_by_name_is_waited_for_though_another_process_still_has_it(
    database: str, is_retried: bool
) -> None:
    """As after a crash: its owner is found to be dead a little later, and only then is it mine."""
    policy = None if is_retried else batch_size_policy(4)
    handler = ErrorHandler(strategy=ErrorStrategy.RETRY, max_retries=1, retry_delay=2.0)
    failed = threading.Event()

    def logic(*_: object) -> None:
        if is_retried and not failed.is_set():
            failed.set()
            raise OSError("not yet")

    registry = chain(Step(logic, policy=policy, handler=handler))
    with running(database, registry) as owner, running(database, registry) as other:
        job = post(owner, {"n": 1})
        if is_retried:
            assert failed.wait(10)
            assert owner.wait_until_all_workers_idle(10)
        assert not other.wait_until_all_jobs_finished(0.0)
        assert not parts(other).workers.by_id
        owner.shutdown(wait=False)
        assert other.wait_until_all_jobs_finished(20)
        assert other.get_job(str(job.job_id)).status == "completed"
