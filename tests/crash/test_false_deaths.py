"""Postgres: a runtime that lives is not taken for dead by the others, whatever they can see of its
connection.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from routilux import Runtime
from routilux.engine.settings import Settings
from routilux.ownership import lease
from tests.crash.support import checker, orders
from tests.support.inside_runtime import identity, looks
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually

LEASE_S = 3.0


@pytest.fixture(autouse=True)
def _dead_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BACKEND_GONE_S", 0.0)


def _start(url: str) -> Runtime:
    settings = Settings(lease_s=LEASE_S, reconcile_s=0.05)
    return Runtime(2, database=url, lease=LEASE_S, registry=orders.register(), settings=settings)


def _watch_each_other(one: Runtime, other: Runtime) -> None:
    keys, before = (identity(one), identity(other)), (looks(one), looks(other))
    eventually(lambda: looks(one) > before[0] + 40 and looks(other) > before[1] + 40, timeout=60)
    assert (identity(one), identity(other)) == keys


def test_the_backends_of_another_role_are_seen_by_their_pid_alone(
    postgres_shop: str, postgres_server: PostgresServer
) -> None:
    """The server hides when they began."""
    roles = [f"{postgres_shop.rpartition('/')[2]}_{name}" for name in ("a", "b")]
    with closing(checker.connect(postgres_shop)) as connection:
        for role in roles:
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        connection.commit()
    try:
        one, other = (postgres_shop.replace("postgres@", f"{role}@") for role in roles)
        with _start(one) as first, _start(other) as second:
            _watch_each_other(first, second)
    finally:
        with closing(checker.connect(postgres_shop)) as connection:
            for role in roles:
                connection.execute(f"DROP OWNED BY {role}")
                connection.execute(f"DROP ROLE {role}")
            connection.commit()


def test_a_server_that_ends_idle_sessions_does_not_end_that_of_a_lease(
    postgres_shop: str, postgres_server: PostgresServer
) -> None:
    postgres_server.execute(
        f"ALTER DATABASE {postgres_shop.rpartition('/')[2]} SET idle_session_timeout = 400"
    )
    with _start(postgres_shop) as first, _start(postgres_shop) as second:
        _watch_each_other(first, second)
