"""Postgres is down: whoever calls is told so by an error of ours, whoever waits waits on, and afterwards all goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from routilux import Client, Runtime
from routilux.errors import DatabaseUnavailableError, PostInDoubt
from tests.crash.support import checker, orders, program
from tests.support.postgres import PostgresServer


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
        waiting = [threading.Thread(target=lambda host=host: ended.append(host.wait_for(late.job_id, 60)))
                   for host in (client, other)]  # fmt: skip
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
            lambda: client.control("pause_job", "w", late.job_id, {}),
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
