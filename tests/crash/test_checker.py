"""The checker finds what it is there to find."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.crash.support import checker, orders
from tests.crash.support.program import Acknowledged
from tests.crash.support.zygote import Zygote

FAULTS = {
    "a dropped row": "DELETE FROM orders WHERE place = 2",
    "a doubled row": "INSERT INTO orders (worker_id, place, job_id, part, amount) SELECT worker_id, place,"
    " job_id, part, amount FROM orders WHERE place = 5",
    "a swapped row": "UPDATE orders SET place = 7 - place WHERE place IN (3, 4)",
    "a message that waits": "UPDATE routilux_messages SET status = 'waiting' WHERE seq = 3",
    "a dropped job": "DELETE FROM routilux_jobs WHERE job_id = 'job-00001'",
    "a message consumed twice": "UPDATE routilux_activations SET seqs = '1' WHERE n = (SELECT max(n) FROM"
    " routilux_activations)",
    "a counter that is behind": "UPDATE routilux_worker_state SET value = '2' WHERE routine = 'work'",
}


def test_the_checker_finds_planted_faults(shop: str, zygote: Zygote, acknowledged: Path) -> None:
    child = zygote.start(
        "tests.crash.support.program:work", url=shop, acknowledged=str(acknowledged), numbers=(0, 8)
    )
    assert child.wait() == 0, child.output
    ids = Acknowledged.read(acknowledged)
    assert ids == {orders.job_id_of(n) for n in range(8)}
    assert checker.faults(shop, ids, orders.PARTS) == []

    with closing(checker.connect(shop)) as connection:
        for name, statement in FAULTS.items():
            assert connection.execute(statement).rowcount > 0, name
            assert checker.faults_in(connection, ids, orders.PARTS), f"{name} went unnoticed"
            connection.rollback()
        assert checker.faults_in(connection, ids, orders.PARTS) == []
        assert checker.faults_in(connection, {*ids, "job-99999"}, orders.PARTS)
