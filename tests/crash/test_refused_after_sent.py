"""A commit is sent, its answer is lost, and the next try meets an error that does not pass.

A caller who is told that the database refused it may rely on that: what was sent first never goes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, ProgrammingError

from routilux.errors import PostInDoubt
from routilux.runtime import Runtime
from routilux.store.writes.commit_rows import Changes
from routilux.store.writes.store import Commit
from tests.crash.support import checker, orders, program
from tests.crash.support.losses import AFTER, BEFORE, Losses
from tests.crash.support.proxy import KeepingProxy
from tests.support.inside_runtime import parts
from tests.support.postgres import PostgresServer

JOB = "refused"


@contextmanager
def raising_trigger(url: str) -> Iterator[None]:
    """A trigger of the user's raises for every new message."""
    with closing(checker.connect(url)) as connection:
        connection.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'"
        )
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON routilux_messages FOR EACH ROW EXECUTE FUNCTION no()"
        )
        connection.commit()
    yield
    with closing(checker.connect(url)) as connection:
        connection.execute("DROP FUNCTION no CASCADE")
        connection.commit()


@contextmanager
def refusing(kind: type, method: str, losses: Losses, after: int = 1, times: int = 1000) -> Iterator[None]:
    """After so many lost answers this raises what does not pass, so many times."""
    expected, left, works = len(losses.left) - after, [times], getattr(kind, method)

    def refuse(*arguments: Any) -> Any:
        if left[0] and len(losses.left) <= expected:
            left[0] -= 1
            raise ProgrammingError(method, None, Exception("no"))
        return works(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, method, refuse)
        yield
    assert left[0] < times


def _post(runtime: Runtime, job_id: str | None = None) -> str:
    return runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w", job_id).job.job_id


def _check_others_go_in(url: str, runtime: Runtime) -> None:
    """Nothing of the refused one is there, and the next ones are."""
    ids = {_post(runtime), _post(runtime)}
    assert all(runtime.get_job(job_id).wait(30) for job_id in ids)
    assert runtime.get_job(JOB) is None
    assert checker.faults(url, ids, orders.PARTS) == []


def test_what_the_server_reads_after_its_caller_was_told_that_it_is_refused_is_not_in(
    postgres_shop: str, postgres_server: PostgresServer
) -> None:
    """A real connection, a real server: the text of a whole commit lies in a buffer while all this
    happens.
    """
    with KeepingProxy(postgres_server.port) as proxy:
        url = postgres_shop.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with program.start(url) as runtime:
            runtime.exec(orders.FLOW, worker_id="w")
            proxy.must_keep = True
            with raising_trigger(postgres_shop), pytest.raises(DBAPIError, match="no"):
                _post(runtime)
            assert not proxy.must_keep, "nothing went whole"
            assert b"C23505" in proxy.hand_over()  # unique_violation: its number is used up
            ids = {_post(runtime), _post(runtime)}
            assert all(runtime.get_job(job_id).wait(30) for job_id in ids)
    assert checker.faults(postgres_shop, ids, orders.PARTS) == []


@pytest.mark.parametrize("ways", [[BEFORE], [BEFORE, AFTER], [BEFORE, BEFORE, AFTER]], ids=", ".join)
def test_the_number_is_used_up_though_answers_are_lost_on_the_way(shop: str, ways: list[str]) -> None:
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        with (
            Losses(runtime, ways) as losses,
            refusing(Changes, "write", losses),
            pytest.raises(DBAPIError, match="no"),
        ):
            _post(runtime, JOB)
        assert losses.left == []
        with closing(checker.connect(shop)) as connection:
            last = connection.execute("SELECT max(n) FROM routilux_commits").fetchone()[0]
        assert last == parts(runtime).transactions.commit_n
        _check_others_go_in(shop, runtime)


def test_a_post_that_had_gone_in_is_accepted_whatever_the_next_try_met(shop: str) -> None:
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        with Losses(runtime, [AFTER]) as losses, refusing(Commit, "fence", losses, times=1):
            job_id = _post(runtime)
        assert runtime.get_job(job_id).wait(30)
    assert checker.faults(shop, {job_id}, orders.PARTS) == []


def test_where_it_cannot_be_known_the_caller_is_in_doubt(shop: str) -> None:
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        with (
            Losses(runtime, [BEFORE]) as losses,
            refusing(Commit, "mark", losses),
            pytest.raises(PostInDoubt, match=JOB),
        ):
            _post(runtime, JOB)
        assert _post(runtime, JOB) == JOB
        assert runtime.get_job(JOB).wait(30)
    assert checker.faults(shop, {JOB}, orders.PARTS) == []


def test_numbers_that_are_used_up_are_not_used_again_though_nobody_knows_it(shop: str) -> None:
    """The commit that used them up is in, its answer is lost, and it cannot be asked for."""
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        with (
            Losses(runtime, [BEFORE, AFTER]) as losses,
            refusing(Changes, "write", losses),
            refusing(Commit, "mark", losses, after=2),
            pytest.raises(PostInDoubt),
        ):
            _post(runtime, JOB)
        ids = {_post(runtime), _post(runtime, JOB)}
        assert all(runtime.get_job(job_id).wait(30) for job_id in ids)
    assert checker.faults(shop, ids, orders.PARTS) == []
