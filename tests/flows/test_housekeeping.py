"""Chores of a living runtime that must keep up with what it does."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine, func, pool, select

from routilux import Runtime
from routilux.engine.settings import Settings
from routilux.store import tables
from tests.flows.flows import Step, chain, post, running
from tests.support.waiting import eventually

JOBS = 40


def jobs_in(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.jobs)).scalar_one())


def test_old_history_goes_batch_after_batch_not_one_a_period(database: str) -> None:
    registry = chain(Step(lambda *_: None))
    with running(database, registry) as runtime:
        for n in range(JOBS):
            post(runtime, {"n": n})
        assert runtime.wait_until_all_jobs_finished(20)
    settings = Settings(keep_completed_s=0.0, prune_batch=5, reconcile_s=3600.0)
    engine = create_engine(database, poolclass=pool.NullPool)
    with Runtime(database=database, registry=registry, settings=settings):
        eventually(lambda: jobs_in(engine) == 0)
