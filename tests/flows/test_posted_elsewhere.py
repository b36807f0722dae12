"""Jobs that another process runs for this one: remembered while they are open, and not for ever."""

from __future__ import annotations

import pytest

from routilux.runtime import waiting
from tests.flows.flows import Step, chain, post, running


def test_a_program_that_posts_and_never_waits_does_not_remember_every_job(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_ELSEWHERE", 10)
    registry = chain(Step(lambda *_: None))
    with running(database, registry) as owner, running(database, registry) as other:
        assert "w" in owner.engine.by_id
        for n in range(60):
            job = post(other, {"n": n})
            assert owner.get_job(str(job.job_id))
            assert job.wait(10)
        assert 1 <= len(other.posted_elsewhere) <= 11
        assert other.wait_until_all_jobs_finished(10)
        assert not other.posted_elsewhere
