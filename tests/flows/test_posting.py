"""The ways to enqueue: post, post_many, signal, ids, the caller's transaction, and a client that runs
nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from routilux import (
    Client,
    Flow,
    FlowRegistry,
    IdempotencyConflictError,
    JobEndedError,
    JobNotFoundError,
    Post,
    Runtime,
    StateError,
    WorkerState,
    get_current_job_id,
    sqlite_engine,
)
from tests.flows.flows import Step, chain, post, running
from tests.support.looking import column, rows, stored
from tests.support.waiting import eventually

GOOD = ("f", "s0", "input")
orders = Table("orders", MetaData(), Column("n", Integer, primary_key=True))


class Seen:
    """Logic that notes what it is given, and counts."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.items.append(slot_data["input"][0])
        worker_state.increment("s0", "seen")


def engine_of(database: str) -> Any:
    return (
        sqlite_engine(database)
        if database.startswith("sqlite")
        else create_engine(database, poolclass=NullPool)
    )


@contextmanager
def own_table(database: str) -> Iterator[Any]:
    """The user's own engine, with a table `orders`."""
    engine = engine_of(database)
    with engine.begin() as connection:
        orders.create(connection)
    yield engine
    engine.dispose()


def known_flow(database: str, registry: FlowRegistry) -> None:
    """The flow is registered in the database, and its worker `w` is there; nothing runs."""
    with running(database, registry):
        pass


# post and post_many


def test_a_post_returns_a_worker_and_a_job_and_answers_for_the_job(database: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime:
        posted = runtime.post(*GOOD, {"n": 1}, metadata={"user": "ada"})
        worker, job = posted
        assert isinstance(worker, WorkerState)
        assert (worker.worker_id, worker.flow_id, posted.worker, posted.job) == ("w", "f", worker, job)
        assert (posted.job_id, posted.worker_id, posted.flow_id) == (job.job_id, "w", "f")
        assert posted.metadata == {"user": "ada"}
        assert posted.wait(10)
        assert posted.status == "completed"
        again = runtime.get_job(job.job_id)
        assert (again.metadata, again.error, again.data) == ({"user": "ada"}, None, {})
        assert job.created_at <= job.started_at <= job.completed_at
        assert job.to_dict()["status"] == "completed"
    assert seen.items == [{"n": 1}]


def test_a_post_goes_to_the_newest_live_worker_or_to_the_one_it_names(database: str) -> None:
    with running(database, chain(Step(Seen()))) as runtime:
        second = runtime.exec("f")
        third = runtime.exec("f")
        workers = [runtime.post(*GOOD, {}).worker_id, runtime.post(*GOOD, {}, "w").worker_id]
        runtime.cancel_worker(third.worker_id)
        workers.append(runtime.post(*GOOD, {}).worker_id)
        assert workers == [third.worker_id, "w", second.worker_id]
        assert runtime.wait_until_all_jobs_finished(10)
        assert second.get_routine_state("s0") == {"seen": 1}


def test_without_a_worker_a_post_starts_one(database: str) -> None:
    with Runtime(1, database=database, registry=chain(Step(Seen()))) as runtime:
        first, second = runtime.post(*GOOD, {}), runtime.post(*GOOD, {})
        assert first.worker_id == second.worker_id is not None
        assert first.wait(10)


def test_thousands_of_posts_go_in_together_and_are_handled_in_their_order(database: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime:
        jobs = runtime.post_many(*GOOD, ({"n": n} for n in range(5000)), metadata={"source": "file"})
        assert len({job.job_id for job in jobs}) == 5000
        assert runtime.wait_until_all_jobs_finished(60)
        assert {job.status for job in jobs[::500]} == {"completed"}
        assert jobs[-1].metadata == {"source": "file"}
    assert [item["n"] for item in seen.items] == list(range(5000))
    counts = "SELECT status, count(*) FROM routilux_jobs GROUP BY status"
    assert rows(database, counts) == [("completed", 5000)]


def test_items_may_have_settings_of_their_own(database: str) -> None:
    with running(database, chain(Step(Seen()))) as runtime:
        runtime.pause_worker("w")
        one, two, three, four = runtime.post_many(
            *GOOD,
            [
                {"n": 1},
                Post({"n": 2}, job_id="mine"),
                Post({"n": 3}, metadata={"k": 3}),
                Post({}, delay=3600),
            ],
            metadata={"k": 0},
        )
        assert two.job_id == "mine"
        assert [job.metadata for job in (one, two, three, four)] == [{"k": 0}, {}, {"k": 3}, {}]
        runtime.resume_worker("w")
        assert all(job.wait(10) for job in (one, two, three))
        assert four.status == "pending"


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


# ids that make a post idempotent


def test_an_id_makes_one_job_before_during_and_after_it(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen), Step(Seen()))
    with running(database, registry) as runtime:
        runtime.pause_worker("w")
        first = post(runtime, {"n": 1}, job_id="mine", metadata={"try": 1})
        again = post(runtime, {"n": 1}, job_id="mine", metadata={"try": 2})
        assert (again.job_id, again.status, again.metadata) == ("mine", "pending", {"try": 1})
        before = stored(database)
        for names, data in ((GOOD, {"n": 2}), (("f", "s1", "input"), {"n": 1})):
            with pytest.raises(IdempotencyConflictError, match="'mine' was used for a different post"):
                runtime.post(*names, data, "w", job_id="mine")
        with pytest.raises(IdempotencyConflictError):
            runtime.post_many(*GOOD, [{"n": 5}, Post({"n": 2}, job_id="mine")], worker_id="w")
        assert stored(database) == before
        runtime.resume_worker("w")
        assert first.wait(10)
        assert post(runtime, {"n": 1}, job_id="mine").status == "completed"
    with running(database, registry) as runtime:
        assert post(runtime, {"n": 1}, job_id="mine").status == "completed"
        with pytest.raises(IdempotencyConflictError):
            post(runtime, {"n": 2}, job_id="mine")
    assert seen.items == [{"n": 1}]


def test_an_id_twice_in_one_call_is_one_job(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    items = [Post({"n": 1}, job_id="a"), Post({"n": 2}, job_id="b"), Post({"n": 1}, job_id="a")]
    with running(database, registry) as runtime:
        jobs = runtime.post_many(*GOOD, items, worker_id="w")
        assert [job.job_id for job in jobs] == ["a", "b", "a"]
        assert all(job.wait(10) for job in jobs)
        with pytest.raises(IdempotencyConflictError):
            runtime.post_many(*GOOD, [Post({"n": 1}, job_id="c"), Post({"n": 2}, job_id="c")])
        assert runtime.get_job("c") is None
    with Client(database) as client:
        with pytest.raises(IdempotencyConflictError):
            client.post_many(*GOOD, [Post({"n": 1}, job_id="d"), Post({"n": 2}, job_id="d")])
        assert client.get_job("d") is None
        client.post_many(*GOOD, [Post({"n": 3}, job_id="d"), Post({"n": 3}, job_id="d")])
        with running(database, registry):
            assert client.get_job("d").wait(10)
    assert seen.items == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_an_id_is_known_to_other_processes_before_and_after_it_is_accepted(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with Client(database) as one, Client(database) as two:
        first = one.post(*GOOD, {"n": 1}, job_id="mine")
        assert two.post(*GOOD, {"n": 1}, job_id="mine").status == "pending"
        with pytest.raises(IdempotencyConflictError):
            two.post(*GOOD, {"n": 2}, job_id="mine")
        assert stored(database)["inbox"] == 1
        with running(database, registry) as runtime:
            assert first.job.wait(10)
            for door in (one, two, runtime):
                assert door.post(*GOOD, {"n": 1}, job_id="mine").status == "completed"
                with pytest.raises(IdempotencyConflictError):
                    door.post(*GOOD, {"n": 2}, job_id="mine")
            theirs = post(runtime, {"n": 3}, job_id="theirs")
            assert theirs.wait(10)
            assert one.post(*GOOD, {"n": 3}, job_id="theirs").status == "completed"
            with pytest.raises(IdempotencyConflictError):
                one.post(*GOOD, {"n": 4}, job_id="theirs")
    assert seen.items == [{"n": 1}, {"n": 3}]


# signals


def test_signals_are_messages_of_a_running_job_until_it_ends(database: str) -> None:
    seen: list[Any] = []

    def approve(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        seen.append((slot_data["input"][0]["n"], get_current_job_id()))

    registry = chain(Step(approve))
    with running(database, registry) as runtime:
        job = post(runtime, {"n": 0}, delay=3600)
        runtime.signal(job.job_id, "s0", "input", {"n": 1})
        eventually(lambda: len(seen) == 1)
        runtime.pause_worker("w")
        runtime.signal(job.job_id, "s0", "input", {"n": 2})
        with Client(database) as client:
            client.signal(job.job_id, "s0", "input", {"n": 3})
    with running(database, registry) as runtime:  # durable on return
        runtime.resume_worker("w")
        eventually(lambda: len(seen) == 3)
        job = runtime.get_job(job.job_id)
        assert job.status == "running"
        job.complete(result={"ok": True})
        assert job.result(10) == {"ok": True}
        with pytest.raises(JobEndedError, match=r"has ended \(completed\)"):
            runtime.signal(job.job_id, "s0", "input", {"n": 4})
    assert seen == [(n, job.job_id) for n in (1, 2, 3)]


# in the caller's transaction


@pytest.fixture(params=["core", "orm"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def transaction_of(engine: Any, kind: str) -> Iterator[Any]:
    """A Core connection or an ORM session with a transaction open; the test ends it."""
    with engine.connect() if kind == "core" else Session(engine) as mine:
        yield mine


def test_a_post_goes_in_with_the_callers_rows_or_not_at_all(database: str, kind: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client:
        with transaction_of(engine, kind) as mine:
            mine.execute(insert(orders).values(n=1))
            kept = client.post(*GOOD, {"n": 1}, "w", transaction=mine, metadata={"k": 1})
            assert client.get_job(kept.job_id) is None  # nobody else sees it yet
            assert (kept.status, kept.metadata) == ("pending", {"k": 1})
            assert not kept.job.wait(0.05)
            mine.commit()
            assert kept.status == "pending"
            mine.execute(insert(orders).values(n=2))
            lost = client.post(*GOOD, {"n": 2}, "w", transaction=mine)
            many = client.post_many(*GOOD, [{"n": 3}, {"n": 4}], transaction=mine)
            mine.rollback()
        for job in (lost.job, *many):
            assert client.get_job(job.job_id) is None
            with pytest.raises(JobNotFoundError):
                job.status
        with engine.connect() as connection:
            assert connection.execute(select(orders.c.n)).scalars().all() == [1]
        with running(database, registry) as runtime:
            assert kept.job.wait(10)
            assert runtime.get_job(lost.job_id) is None
    assert seen.items == [{"n": 1}]


def test_a_runtime_posts_in_the_callers_transaction_too(database: str, kind: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime, own_table(database) as engine:
        with transaction_of(engine, kind) as mine:
            mine.execute(insert(orders).values(n=1))
            posted = runtime.post(*GOOD, {"n": 1}, transaction=mine)
            assert (posted.worker, posted.status) == (None, "pending")
            jobs = runtime.post_many(*GOOD, [{"n": 2}, {"n": 3}], transaction=mine)
            assert seen.items == []
            mine.commit()
        assert posted.job.wait(10)
        assert all(job.wait(10) for job in jobs)
        assert (posted.job.status, posted.job.worker_id) == ("completed", "w")
    assert seen.items == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_an_id_and_a_savepoint_in_the_callers_transaction(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client:
        with engine.begin() as mine:
            client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
            client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
            with pytest.raises(IdempotencyConflictError):
                client.post(*GOOD, {"n": 2}, job_id="mine", transaction=mine)
            with mine.begin_nested() as savepoint:
                undone = client.post(*GOOD, {"n": 3}, transaction=mine)
                savepoint.rollback()
        assert stored(database)["inbox"] == 1
        assert client.get_job(undone.job_id) is None
        with engine.begin() as mine:
            assert client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine).status == "pending"
        with running(database, registry):
            assert client.get_job("mine").wait(10)
    assert seen.items == [{"n": 1}]


def test_two_callers_that_commit_one_id_at_once_make_one_job(database: str) -> None:
    """Each looked before the other committed: the owner settles it when it accepts them."""
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client:
        if database.startswith("sqlite"):  # one writer at a time: the second looks after the first
            for _ in range(2):
                with engine.begin() as mine:
                    client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
        else:
            with engine.begin() as one, engine.begin() as two:
                for mine in (one, two):
                    client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
        with running(database, registry) as runtime:
            assert client.get_job("mine").wait(10)
            assert runtime.wait_until_all_jobs_finished(10)
            eventually(lambda: stored(database)["inbox"] == 0)
    assert seen.items == [{"n": 1}]
    assert column(database, "SELECT job_id FROM routilux_jobs") == ["mine"]


def test_on_sqlite_the_callers_transaction_comes_from_sqlite_engine(sqlite_database: str) -> None:
    with running(sqlite_database, chain(Step(Seen()))) as runtime:
        plain = create_engine(sqlite_database, poolclass=NullPool)
        with plain.connect() as mine, pytest.raises(StateError, match=r"routilux\.sqlite_engine"):
            runtime.post(*GOOD, {}, transaction=mine)
        with own_table(sqlite_database) as engine, engine.begin() as mine:
            mine.execute(insert(orders).values(n=1))
            with pytest.raises(StateError, match="transaction="):  # else it would wait for itself
                runtime.post(*GOOD, {})
    assert stored(sqlite_database)["inbox"] == 0


# a client that runs nothing


def test_what_a_client_posts_while_nothing_runs_is_done_by_the_next_runtime(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with Client(database) as client:
        named = client.post(*GOOD, {"n": 1}, "w", metadata={"k": 1})
        loose = client.post(*GOOD, {"n": 2})
        many = client.post_many(*GOOD, [{"n": n} for n in range(3, 1003)], worker_id="w")
        late = client.post(*GOOD, {"n": 0}, "w", delay=3600)
        jobs = [named.job, loose.job, *many]
        assert (named.worker, named.status, named.metadata) == (None, "pending", {"k": 1})
        assert client.get_job(loose.job_id).worker_id is None
        assert len(client.list_jobs(limit=5000, status="pending")) == 1003
        assert not named.job.wait(0.05)
        view = "SELECT count(*) FROM routilux_job_history WHERE status = 'pending'"
        assert rows(database, view) == [(1003,)]
        with running(database, registry) as runtime:
            assert runtime.get_job(named.job_id) is not None
            assert all(job.wait(30) for job in jobs)
            assert (loose.job.status, loose.job.worker_id) == ("completed", "w")
            assert late.status == "pending"
    assert [item["n"] for item in seen.items] == [*range(1, 1003)]


def test_a_runtime_that_has_no_worker_starts_one_for_a_clients_post(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    with Runtime(1, database=database, registry=registry):
        pass  # the flow is known now, no worker is
    with Client(database) as client:
        job = client.post(*GOOD, {"n": 1}).job
        assert stored(database)["workers"] == 0
        with Runtime(1, database=database, registry=registry):
            assert job.wait(10)
            assert job.status == "completed"
            assert job.worker_id is not None


def test_a_client_reads_and_controls(database: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime, Client(database) as client:
        client.pause_worker("w", "lunch")
        worker = runtime.exec("f", worker_id="w")
        eventually(lambda: worker.status == "paused")
        first, second, third = client.post_many(*GOOD, [{"n": 1}, {"n": 2}, {"n": 3}], worker_id="w")
        eventually(lambda: stored(database)["inbox"] == 0)
        client.pause_job(first.job_id)
        client.cancel_job(second.job_id, "not needed")
        assert second.wait(10)
        assert (second.status, second.error) == ("cancelled", "not needed")
        client.resume_worker("w")
        assert third.wait(10)
        eventually(lambda: first.status == "paused")
        client.resume_job(first.job_id)
        assert first.wait(10)
        client.cancel_worker("w", "over")
        eventually(lambda: worker.status == "cancelled")
    assert [item["n"] for item in seen.items] == [3, 1]


def test_a_post_from_another_process(database: str) -> None:
    seen = Seen()
    program = (
        "import sys\nfrom routilux import Client\nwith Client(sys.argv[1]) as client:\n"
        "    job = client.post('f', 's0', 'input', {'n': 1}, job_id='theirs').job\n"
        "    print(job.wait(20), job.status)\n"
    )
    with running(database, chain(Step(seen))) as runtime:
        done = subprocess.run(
            [sys.executable, "-c", program, database], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.split() == ["True", "completed"], done.stderr
        assert runtime.get_job("theirs").status == "completed"
    assert seen.items == [{"n": 1}]


def test_two_runtimes_of_two_flows_post_to_each_other(database: str) -> None:
    """A post for a worker that another runtime owns goes through the inbox,
    and its handle follows the job.
    """
    seen = Seen()
    mine = chain(Step(Seen()))
    theirs = FlowRegistry()
    flow = Flow("g")
    flow.add_routine(Step(seen), "s0")
    theirs.register_by_name("g", flow)
    mine.register_by_name("g", flow)
    with Runtime(1, database=database, registry=theirs) as other:
        other.exec("g", worker_id="far")
        with running(database, mine) as runtime:
            posted = runtime.post("g", "s0", "input", {"n": 1}, "far")
            assert runtime.wait_until_all_jobs_finished(20)
            assert (posted.status, posted.worker_id) == ("completed", "far")
            assert runtime.exec("g", worker_id="far").get_routine_state("s0") == {"seen": 1}
    assert seen.items == [{"n": 1}]


def test_a_connection_that_is_not_in_a_transaction_begins_one(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client, engine.connect() as mine:
        assert isinstance(mine, Connection)
        assert not mine.in_transaction()
        client.post(*GOOD, {"n": 1}, transaction=mine)
        assert mine.in_transaction()
    assert stored(database)["inbox"] == 0  # closed without a commit
