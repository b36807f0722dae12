"""Own statements that misbehave: only the activation concerned is affected, the other workers go on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, create_engine, insert, select, text
from sqlalchemy.pool import NullPool

from routilux import ErrorHandler, Flow, FlowRegistry, Routine
from routilux.errors import WriteError
from routilux.store.writes.store import Commit
from tests.flows.flows import Step, chain, post, running
from tests.support.inside_runtime import worker
from tests.support.looking import column
from tests.support.waiting import eventually

metadata = MetaData()
parents = Table("parents", metadata, Column("n", Integer, primary_key=True))
children = Table(
    "children",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("parent", Integer, ForeignKey("parents.n", deferrable=True, initially="DEFERRED")),
)


@pytest.fixture
def tables(database: str) -> str:
    with create_engine(database, poolclass=NullPool).begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(parents).values(n=1))
    return database


def stored(database: str, column: Any) -> list[Any]:
    with create_engine(database, poolclass=NullPool).connect() as connection:
        return sorted(connection.execute(select(column)).scalars())


def test_a_deferred_constraint_fails_its_own_activation_alone(tables: str) -> None:
    def store(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        item = slot_data["input"][0]
        step.write(insert(children).values(n=item["n"], parent=item["parent"]))
        worker_state.increment("seen", "count")

    with running(tables, chain(Step(store))) as runtime:
        items = [{"n": n, "parent": 99 if n == 5 else 1} for n in range(10)]
        jobs = runtime.post_many("f", "s0", "input", items, worker_id="w")
        assert all(job.wait(30) for job in jobs)
        assert [job.status for job in jobs].count("completed") == 9
        assert jobs[5].status == "failed"
        assert runtime.exec("f", worker_id="w").get_routine_state("seen") == {"count": 9}
    assert stored(tables, children.c.n) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_a_statement_that_ends_the_transaction_fails_its_own_activation_alone(sqlite_database: str) -> None:
    with create_engine(sqlite_database, poolclass=NullPool).begin() as connection:
        metadata.create_all(connection)

    def store(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        n = slot_data["input"][0]["n"]
        step.write(insert(parents).values(n=n))
        if n == 3:
            step.write(
                insert(parents).prefix_with("OR ROLLBACK").values(n=n)
            )  # the key is taken: all is undone

    with running(sqlite_database, chain(Step(store))) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(8)], worker_id="w")
        assert all(job.wait(30) for job in jobs)
        assert [job.job_id for job in jobs if job.status != "completed"] == [jobs[3].job_id]
        assert "ended the transaction" in str(jobs[3].error)
    assert stored(sqlite_database, parents.c.n) == [0, 1, 2, 4, 5, 6, 7]


def test_what_is_no_dml_is_refused_in_logic(tables: str) -> None:
    def store(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        with pytest.raises(WriteError, match="TextClause"):
            step.write(text("COMMIT"))
        with pytest.raises(WriteError, match="returning"):
            step.write(insert(parents).values(n=7).returning(parents.c.n))

    with running(tables, chain(Step(store))) as runtime:
        job = post(runtime, {})
        assert job.wait(10)
        assert job.status == "completed"


def test_an_error_text_with_u0000_and_a_lone_surrogate_is_stored(tables: str) -> None:
    def fail(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        raise ValueError("a\x00b\ud800c")

    with running(tables, chain(Step(fail))) as runtime:
        job = post(runtime, {})
        assert job.wait(10)
        assert job.error == "ValueError: a\\x00b\\ud800c"


def test_many_that_wait_for_one_strangers_lock_hold_the_group_up_once(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waiting its 250 ms in every commit would stop everybody."""
    waits: list[int] = []
    limit = Commit.limit_lock_wait

    def noted(commit: Commit, milliseconds: int | None) -> None:
        if milliseconds is not None:
            waits.append(milliseconds)
        limit(commit, milliseconds)

    monkeypatch.setattr(Commit, "limit_lock_wait", noted)
    engine = create_engine(postgres_database, poolclass=NullPool)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(parents), [{"n": 1}, {"n": 2}])

    def change(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        step.write(parents.update().where(parents.c.n == 1).values(n=1))

    step = Step(change)
    step.set_concurrency(4)
    registry = chain(step)
    with running(postgres_database, registry) as runtime, engine.connect() as stranger:
        stranger.execute(select(parents).where(parents.c.n == 1).with_for_update())
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(8)], worker_id="w")
        in_line = "SELECT count(*) FROM routilux_activations WHERE status = 'retrying'"
        eventually(lambda: column(postgres_database, in_line)[0] >= 24, timeout=30)
        stranger.rollback()
        assert all(job.wait(20) for job in jobs)
        assert worker(runtime, "w").lock_tries == {}
    assert waits.count(250) <= 8 + 1 < waits.count(20)
    engine.dispose()


def test_a_strangers_row_lock_holds_up_one_activation_and_no_other_worker(postgres_database: str) -> None:
    engine = create_engine(postgres_database, poolclass=NullPool)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(parents), [{"n": 1}, {"n": 2}])

    def change(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        n = slot_data["input"][0]["n"]
        step.write(parents.update().where(parents.c.n == n).values(n=n))

    flow = Flow("other")
    other = Routine()
    other.add_slot("input")
    other.set_logic(lambda slot_data, policy_message, worker_state: worker_state.increment("seen", "count"))
    from routilux.activation_policies import immediate_policy

    other.set_activation_policy(immediate_policy())
    flow.add_routine(other, "only")
    registry: FlowRegistry = chain(Step(change, handler=ErrorHandler("retry", max_retries=1)))
    registry.register_by_name("other", flow)
    with running(postgres_database, registry) as runtime, engine.connect() as stranger:
        stranger.execute(select(parents).where(parents.c.n == 1).with_for_update())
        held = post(runtime, {"n": 1})
        free = post(runtime, {"n": 2})
        jobs = runtime.post_many("other", "only", "input", [{"n": n} for n in range(50)])
        assert all(job.wait(20) for job in jobs)
        assert free.wait(20)
        assert not held.wait(0.5)
        stranger.rollback()
        assert held.wait(20)
        assert held.status == "completed"
        assert runtime.dead_letters() == []
    engine.dispose()
