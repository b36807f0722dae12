"""Postgres behind a pooler in transaction mode: server connections come and go, the runtimes that use them
live.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from routilux import Runtime
from routilux.engine.settings import Settings
from routilux.ownership import lease
from tests.crash.support import checker, orders
from tests.crash.support.pooler import TransactionPooler
from tests.support import inside_runtime
from tests.support.inside_runtime import identity, looks, owns
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually

LEASE_S = 3.0


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[TransactionPooler]:
    with TransactionPooler(postgres_server.port) as running:
        yield running


def _start(url: str) -> Runtime:
    settings = Settings(lease_s=LEASE_S, reconcile_s=0.05)
    return Runtime(2, database=url, lease=LEASE_S, registry=orders.register(), settings=settings)


def _through(pooler: TransactionPooler, url: str, server: PostgresServer) -> str:
    return url.replace(f":{server.port}/", f":{pooler.port}/")


def _rows(url: str) -> list[tuple[object, ...]]:
    with closing(checker.connect(url)) as connection:
        return list(
            connection.execute(
                "SELECT key, state, backend_pid, backend_start FROM routilux_runtimes ORDER BY key"
            ).fetchall()
        )


def test_a_runtime_lives_on_when_the_pooler_closes_the_server_connection_that_renewed_its_lease(
    pooler: TransactionPooler,
    postgres_shop: str,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "BACKEND_GONE_S", 0.0)
    with _start(_through(pooler, postgres_shop, postgres_server)) as pooled, _start(postgres_shop) as other:
        pooled.exec(orders.FLOW, worker_id="w")
        key = identity(pooled)
        for _ in range(3):
            pooler.retire()
            before, renewed = looks(other), inside_runtime.lease(pooled)._renewed_at
            eventually(lambda: looks(other) >= before + 10)  # noqa: B023
            eventually(lambda: inside_runtime.lease(pooled)._renewed_at > renewed)  # noqa: B023
        job = pooled.post(orders.FLOW, "split", "input", {"number": 0}, "w").job
        assert job.wait(30)
        assert identity(pooled) == key
        (_, *of_pooled), (_, *of_other) = _rows(postgres_shop)
        assert of_pooled == ["alive", None, None]
        assert of_other[0] == "alive"
        assert None not in of_other, "a direct one is found dead by its backend"
    assert pooler.transactions > 10
    assert checker.faults(postgres_shop, {job.job_id}, orders.PARTS) == []


def test_one_that_is_gone_is_found_by_its_lease(
    pooler: TransactionPooler, postgres_shop: str, postgres_server: PostgresServer
) -> None:
    with _start(postgres_shop) as other:
        pooled = _start(_through(pooler, postgres_shop, postgres_server))
        pooled.exec(orders.FLOW, worker_id="w")
        key = identity(pooled)
        inside_runtime.lease(pooled).stop()  # as a process that is stopped
        eventually(lambda: (key, "dead") in [row[:2] for row in _rows(postgres_shop)], timeout=30)
        eventually(lambda: owns(other, "w"), timeout=30)
        pooled.shutdown(wait=False)
