"""Two processes on one database: what one leaves, the other finishes;
a worker runs in one of them at a time.
"""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.support import checker, orders
from tests.crash.support.program import Acknowledged
from tests.crash.support.zygote import Child, Zygote, until

PROGRAM = "tests.crash.support.program:"
TABLES = ("jobs", "messages", "activations", "parked", "worker_state", "workers")


def is_stopped(child: Child) -> bool:
    return Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All that a runtime writes for a worker, and the user's rows."""
    with closing(checker.connect(url)) as connection:
        read = {table: f"SELECT * FROM routilux_{table}" for table in TABLES} | {
            "orders": "SELECT * FROM orders"
        }
        return {table: sorted(map(repr, connection.execute(sql).fetchall())) for table, sql in read.items()}


def test_what_a_killed_owner_leaves_the_other_finishes(
    shop: str, zygote: Zygote, other_zygote: Zygote, acknowledged: Path, tmp_path: Path
) -> None:
    owner = zygote.start(
        PROGRAM + "work", url=shop, acknowledged=str(acknowledged), workers=["w"], numbers=(0, 100_000)
    )
    until(lambda: len(Acknowledged.read(acknowledged)) >= 10, "nothing is posted", owner)
    other = other_zygote.start(
        PROGRAM + "rescue", url=shop, ready=str(tmp_path / "ready"), acknowledged=str(acknowledged)
    )
    until(lambda: (tmp_path / "ready").exists(), "the other does not start", other)
    owner.kill()
    assert owner.wait() == -9
    (tmp_path / "ready").unlink()  # the list of what was acknowledged is complete: finish it
    assert other.wait() == 0, other.output
    ids = Acknowledged.read(acknowledged)
    assert checker.faults(shop, ids, orders.PARTS, is_exact=False) == []


@pytest.mark.parametrize("where", ["after COMMIT", "in logic"])
def test_an_owner_that_was_stopped_past_its_lease_commits_nothing_more(
    shop: str, zygote: Zygote, other_zygote: Zygote, acknowledged: Path, where: str
) -> None:
    owner = zygote.start(
        PROGRAM + "stopped",
        url=shop,
        acknowledged=str(acknowledged),
        numbers=(0, 40),
        lease_s=1.0,
        where=where,
        commits=4 if where == "after COMMIT" else 11,
    )
    until(lambda: len(Acknowledged.read(acknowledged)) == 40 and is_stopped(owner), "it does not stop", owner)
    other = other_zygote.start(PROGRAM + "work", url=shop, acknowledged=str(acknowledged), lease_s=1.0)
    assert other.wait() == 0, other.output
    ids = Acknowledged.read(acknowledged)
    assert checker.faults(shop, ids, orders.PARTS) == []
    before = contents(shop)

    owner.go_on()
    assert owner.wait() == 0, owner.output
    after = contents(shop)
    assert {table: after[table] for table in TABLES if table != "workers"} == {
        t: before[t] for t in TABLES if t != "workers"
    }
    assert checker.faults(shop, ids, orders.PARTS) == []


def test_two_runtimes_never_run_the_same_worker(
    shop: str, zygote: Zygote, other_zygote: Zygote, tmp_path: Path
) -> None:
    """Each posts to all workers while the other is killed and comes back."""
    workers, choose = [f"w{i}" for i in range(4)], random.Random(5)
    lists = {zygote: tmp_path / "first", other_zygote: tmp_path / "second"}
    numbers = {zygote: (0, 60), other_zygote: (1000, 1060)}

    def start(which: Zygote) -> Child:
        return which.start(
            PROGRAM + "exclusive",
            url=shop,
            acknowledged=str(lists[which]),
            numbers=numbers[which],
            workers=workers,
            marks=str(tmp_path / "marks"),
        )

    children = {which: start(which) for which in lists}
    for turn in range(6):
        which = (zygote, other_zygote)[turn % 2]
        if not children[which].is_over(within_s=choose.uniform(0.1, 0.6)):
            children[which].kill()
        assert children[which].wait() in (0, -9), children[which].output
        children[which] = start(which)
    for child in children.values():
        assert child.wait() == 0, child.output
    ids = {job_id for path in lists.values() for job_id in Acknowledged.read(path)}
    assert ids == {orders.job_id_of(n) for start, stop in numbers.values() for n in range(start, stop)}
    assert checker.faults(shop, ids, orders.PARTS) == []
