"""The answer to COMMIT is lost, both ways: it went in, or it did not. The database tells, nobody guesses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from routilux.activation_policies import immediate_policy
from routilux.core.context import get_current_job
from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry
from routilux.core.routine import Routine
from routilux.engine.inputs import RunEnded
from routilux.errors import DatabaseUnavailableError, PostInDoubt
from routilux.runtime import Client, Runtime
from tests.crash.support import checker, orders, program
from tests.crash.support.losses import AFTER, BEFORE, Losses
from tests.crash.support.proxy import CuttingProxy
from tests.crash.support.staging import JOBS, HeldEngine, Staging, next_group
from tests.crash.support.zygote import Zygote, until
from tests.support.inside_runtime import identity
from tests.support.postgres import PostgresServer


@pytest.fixture(autouse=True)
def _no_gates() -> Iterator[None]:
    yield
    orders.gates.clear()
    orders.is_flaky = True


WAYS = [[BEFORE], [AFTER], [BEFORE, BEFORE, AFTER], [AFTER, AFTER]]


@pytest.mark.parametrize("ways", WAYS, ids=", ".join)
def test_a_commit_whose_answer_is_lost_goes_in_once(shop: str, acknowledged: Path, ways: list[str]) -> None:
    refused: list[BaseException] = []
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        staging = Staging(runtime, "w", 0, program.Acknowledged(acknowledged).add)
        staging.set_up()
        with Losses(runtime, ways) as losses:
            next_group(runtime, _noting(refused))
            staging.commit()
            program.finish(runtime, str(acknowledged))
        assert losses.left == []
    ids = program.Acknowledged.read(acknowledged)
    assert len(ids) == JOBS
    assert checker.faults(shop, ids, orders.PARTS) == []
    assert refused == [], "it was taken apart, where sending it again is enough"


def _noting(errors: list[BaseException]) -> Callable[[Callable[[], None]], None]:
    def around(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)
            raise

    return around


@pytest.mark.parametrize("job_id", [None, "mine"], ids=["a generated id", "an id of the caller's"])
def test_a_post_that_went_in_before_its_runtime_was_declared_dead_is_answered(
    shop: str, job_id: str | None
) -> None:
    """The answer is lost, and before the second try somebody has taken over: the commit row of the dead still
    tells.
    """

    def declare_dead() -> None:
        with closing(checker.connect(shop)) as connection:
            connection.execute("UPDATE routilux_runtimes SET state = 'dead'")
            connection.commit()

    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        before = identity(runtime)
        with Losses(runtime, [AFTER], declare_dead):
            job = runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w", job_id).job
        assert job.wait(30)
        assert identity(runtime) != before
    assert checker.faults(shop, {job.job_id}, orders.PARTS) == []


def test_a_post_that_gets_no_answer_is_in_doubt_and_can_be_made_again(shop: str) -> None:
    patience = replace(program.settings(9.0, 3), post_timeout_s=0.2)
    with Runtime(2, database=shop, registry=orders.register(), settings=patience) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        with Losses(runtime, [BEFORE] * 1000), pytest.raises(PostInDoubt) as caught:
            runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w")
        job_id = caught.value.job_id
        for _ in range(100):  # as its caller would, until it is sure
            with suppress(PostInDoubt, DatabaseUnavailableError):
                runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w", job_id)
                break
        assert runtime.get_job(job_id).wait(30)
    assert checker.faults(shop, {job_id}, orders.PARTS) == []


class Pair(Routine):
    """Two messages of one job: the first writes and ends the job, so that the second is discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_slot("part")
        self.add_event("part")
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.run)
        self.reached, self.go = threading.Event(), threading.Event()
        self.row_id = 1

    def run(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        if slot_data["input"]:
            self.emit("part", number=0)
            self.emit("part", number=1)
        elif slot_data["part"][0]["number"] == 0:
            self.reached.set()
            self.go.wait(30)
            self.write(insert(orders.orders).values(id=self.row_id, job_id="j"))
            get_current_job().complete()


@pytest.fixture
def pair(shop: str) -> Iterator[tuple[Pair, Runtime]]:
    """Both outcomes of a run wait for one commit, which will lose its connection."""
    routine, flow, registry = Pair(), Flow("pair"), FlowRegistry()
    flow.add_routine(routine, "r")
    flow.connect("r", "part", "r", "part")
    registry.register_by_name("pair", flow)
    with Runtime(2, database=shop, registry=registry, settings=program.settings(9.0, 3)) as runtime:
        runtime.post("pair", "r", "input", {}, job_id="j")
        assert routine.reached.wait(30)
        yield routine, runtime


def _commit_both(routine: Pair, runtime: Runtime) -> None:
    engine = HeldEngine(runtime)
    routine.go.set()
    engine.await_inputs(RunEnded, 1)
    with Losses(runtime, [BEFORE]) as losses:
        engine.let_go()
        runtime.wait_until_all_jobs_finished(30)
    assert losses.left == []


def test_own_rows_are_sent_again_though_what_followed_them_was_discarded(
    shop: str, pair: tuple[Pair, Runtime]
) -> None:
    """What the first try decided (the run is broken, the job has ended) must not change what the second
    sends.
    """
    _commit_both(*pair)
    with closing(checker.connect(shop)) as connection:
        assert connection.execute("SELECT id, job_id FROM orders").fetchall() == [(1, "j")]
        found = connection.execute(
            "SELECT seqs, status FROM routilux_activations WHERE n > 1 ORDER BY n"
        ).fetchall()
    assert [status for _, status in found] == ["completed", "discarded"]


def test_own_rows_that_were_refused_are_refused_for_the_same_reason_again(
    shop: str, pair: tuple[Pair, Runtime]
) -> None:
    with closing(checker.connect(shop)) as connection:
        connection.execute("INSERT INTO orders (id, job_id) VALUES (1, 'somebody else')")
        connection.commit()
    _commit_both(*pair)
    job = pair[1].get_job("j")
    assert job.status == "failed"
    assert job.error.startswith("IntegrityError")


def test_a_connection_that_is_cut_at_commit_loses_and_doubles_nothing(
    postgres_shop: str, postgres_server: PostgresServer, acknowledged: Path
) -> None:
    """A real connection, cut by a proxy: before the server got the COMMIT, and after its answer had left."""
    with CuttingProxy(postgres_server.port) as proxy:
        url = postgres_shop.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with program.start(url) as runtime:
            runtime.exec(orders.FLOW, worker_id="w")
            proxy.cut(every=4)
            program.post(runtime, str(acknowledged), ["w"], range(30), 1)
            proxy.cut(every=0)
            program.finish(runtime, str(acknowledged))
    assert min(proxy.cuts.values()) >= 3
    ids = program.Acknowledged.read(acknowledged)
    assert len(ids) == 30
    assert checker.faults(postgres_shop, ids, orders.PARTS) == []


def test_a_post_of_another_process_whose_answer_is_lost_is_in_doubt_and_can_be_made_again(
    postgres_shop: str, postgres_server: PostgresServer
) -> None:
    ids = []
    with program.start(postgres_shop) as runtime, CuttingProxy(postgres_server.port) as proxy:
        runtime.exec(orders.FLOW, worker_id="w")
        with Client(postgres_shop.replace(f":{postgres_server.port}/", f":{proxy.port}/")) as client:
            for number in range(4):  # cut both ways, twice
                proxy.cut(every=1)
                with pytest.raises(PostInDoubt) as caught:
                    client.post(orders.FLOW, "split", "input", {"number": number}, "w")
                proxy.cut(every=0)
                ids.append(caught.value.job_id)
                client.post(orders.FLOW, "split", "input", {"number": number}, "w", ids[-1])
        for job_id in ids:
            assert runtime.get_job(job_id).wait(30)
    assert checker.faults(postgres_shop, set(ids), orders.PARTS) == []


def test_a_clean_stop_gives_the_lease_back_though_its_connection_is_dead(postgres_shop: str) -> None:
    """The server was restarted since the last heartbeat."""
    runtime = program.start(postgres_shop)
    runtime.exec(orders.FLOW, worker_id="w")
    with closing(checker.connect(postgres_shop)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(CAST(backend_pid AS integer), 10000) FROM routilux_runtimes"
        ).fetchall()
        assert runtime.shutdown()
        connection.commit()
        assert connection.execute("SELECT state FROM routilux_runtimes").fetchall() == [("dead",)]
        assert connection.execute("SELECT owner FROM routilux_workers").fetchall() == [(None,)]


def test_a_server_that_is_killed_under_load_and_comes_back_loses_nothing(
    postgres_shop: str, postgres_server: PostgresServer, zygote: Zygote, acknowledged: Path
) -> None:
    """kill -9 to all of Postgres, twice, while a runtime posts and works; it goes on by itself."""
    child = zygote.start(
        "tests.crash.support.program:work",
        url=postgres_shop,
        acknowledged=str(acknowledged),
        numbers=(0, 150),
    )
    for count in (20, 70):
        until(lambda: len(program.Acknowledged.read(acknowledged)) >= count, "nothing is posted", child)  # noqa: B023
        assert not child.is_over(within_s=0.0), child.output
        postgres_server.kill9()
        postgres_server.start()
    assert child.wait() == 0, child.output
    ids = program.Acknowledged.read(acknowledged)
    assert len(ids) == 150
    assert checker.faults(postgres_shop, ids, orders.PARTS) == []
