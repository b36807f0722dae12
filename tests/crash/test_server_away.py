"""The database is away, or refuses: whoever calls is told so by an error of ours, whoever waits waits on, and
afterwards all goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from routilux import Client, Runtime
from routilux.engine.commands import PauseJob
from routilux.errors import (
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    PostInDoubt,
    RoutiluxError,
    RuntimeShutDownError,
)
from tests.crash.support import checker, orders, program
from tests.crash.support.losses import BEFORE, Losses
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually


def test_errors_are_named_and_waits_go_on(postgres_shop: str, postgres_server: PostgresServer) -> None:
    data = {"number": 0}
    with (
        program.start(postgres_shop) as owner,
        program.start(postgres_shop) as other,
        Client(postgres_shop) as client,
    ):
        owner.exec(orders.FLOW, worker_id="w")
        late = client.post(orders.FLOW, "split", "input", data, "w", delay=1.0).job
        ended: list[bool] = []
        jobs = (late, eventually(lambda: other.get_job(late.job_id)))
        waiting = [threading.Thread(target=lambda job=job: ended.append(job.wait(60))) for job in jobs]
        postgres_server.kill9()
        for thread in waiting:
            thread.start()
        calls: list[Callable[[], object]] = [
            lambda: other.post(orders.FLOW, "split", "input", data, "w"),
            lambda: client.post(orders.FLOW, "split", "input", data, "w"),
            lambda: other.get_job(late.job_id),
            lambda: client.list_jobs(),
            lambda: other.dead_letters(),
            lambda: client.pause_job(late.job_id),
            lambda: client._host.command(PauseJob("w", late.job_id, "")),
            lambda: late.wait(0.1),
            lambda: late.status,
            lambda: Runtime(1, database=postgres_shop, registry=orders.register()),
            lambda: Client(postgres_shop),
        ]
        for call in calls:
            with pytest.raises((DatabaseUnavailableError, PostInDoubt)):
                call()
        postgres_server.start()
        for thread in waiting:
            thread.join(90)
        assert ended == [True, True]
    assert checker.faults(postgres_shop, {late.job_id}, orders.PARTS) == []


def test_a_stop_ends_though_the_database_is_away(postgres_shop: str, postgres_server: PostgresServer) -> None:
    owner, other = program.start(postgres_shop), program.start(postgres_shop)
    owner.exec(orders.FLOW, worker_id="w")
    other.post(orders.FLOW, "split", "input", {"number": 0}, "w", delay=3600)
    assert not other.wait_until_all_jobs_finished(0.1), "it knows of the job"
    postgres_server.kill9()
    assert not other.wait_until_all_jobs_finished(timeout=0.2)
    try:
        for runtime in (other, owner):
            assert not runtime.shutdown(timeout=0.5)
            assert not runtime.is_running
            with pytest.raises(RuntimeShutDownError):
                runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w")
    finally:
        postgres_server.start()


def test_a_signal_that_may_have_gone_in_is_not_said_to_be_refused(shop: str) -> None:
    runtime = program.start(shop)
    runtime.exec(orders.FLOW, worker_id="w")
    orders.gates.append(lambda *_: held.wait(30))
    held = threading.Event()
    job = runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w").job
    told: list[BaseException] = []

    def signal() -> None:
        try:
            runtime.signal(job.job_id, "split", "input", {"number": 1})
        except RoutiluxError as error:
            told.append(error)

    with Losses(runtime, [BEFORE] * 1000) as losses:
        thread = threading.Thread(target=signal)
        thread.start()
        eventually(lambda: len(losses.left) < 1000)
        runtime.shutdown(wait=False, timeout=0.5)
        thread.join(30)
    held.set()
    orders.gates.clear()
    assert "it is not known whether this was stored" in str(told[0])


def test_a_right_that_is_missing_is_named(postgres_shop: str, postgres_server: PostgresServer) -> None:
    role = postgres_shop.rpartition("/")[2] + "_app"
    with closing(checker.connect(postgres_shop)) as owner:
        owner.autocommit = True
        owner.execute(f"CREATE ROLE {role} LOGIN")
        for kind in ("TABLES", "SEQUENCES"):
            owner.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}")
        try:
            with program.start(postgres_shop.replace("postgres@", f"{role}@")) as runtime:
                runtime.exec(orders.FLOW, worker_id="w")
                owner.execute(f"REVOKE INSERT ON routilux_messages FROM {role}")
                with pytest.raises(DatabaseReadOnlyError, match="permission denied"):
                    runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w")
                owner.execute(f"REVOKE SELECT ON routilux_jobs FROM {role}")
                with pytest.raises(DatabaseUnavailableError, match="refuses this user"):
                    runtime.get_job("j")
                for kind in ("TABLES", "SEQUENCES"):
                    owner.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}")
        finally:
            owner.execute(f"DROP OWNED BY {role}")
            owner.execute(f"DROP ROLE {role}")
