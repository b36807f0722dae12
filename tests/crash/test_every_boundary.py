"""One group commit with every kind of row, and a SIGKILL between any two statements of it,
and around COMMIT.
"""

from __future__ import annotations

from pathlib import Path

from tests.crash.support import checker, orders
from tests.crash.support.program import Acknowledged
from tests.crash.support.staging import JOBS
from tests.crash.support.zygote import Zygote

WRITTEN = (
    "routilux_messages",
    "routilux_activations",
    "routilux_parked",
    "routilux_jobs",
    "routilux_job_keys",
    "routilux_inbox",
    "routilux_worker_state",
    "routilux_slots",
    "routilux_commits",
    "orders",
)


def test_a_crash_at_every_statement_of_a_commit(
    shop: str, zygote: Zygote, acknowledged: Path, tmp_path: Path
) -> None:
    """Each life finishes what the one before has left, then dies one boundary later;
    the last finds no more.
    """
    passed = tmp_path / "passed"
    for life in range(200):
        child = zygote.start(
            "tests.crash.support.boundaries:live",
            url=shop,
            acknowledged=str(acknowledged),
            life=life,
            passed=str(passed),
        )
        assert child.wait() in (0, -9), f"life {life}: {child.output}"
        if child.exit_code == 0:
            break
    boundaries = passed.read_text().splitlines()
    assert len(boundaries) == life
    for table in WRITTEN:
        assert any(table in where and where.split()[1] != "SELECT" for where in boundaries), (
            f"nothing is written to {table}: {boundaries}"
        )
    assert {"before COMMIT", "after COMMIT"} <= set(boundaries)
    ids = Acknowledged.read(acknowledged)
    assert ids == set(map(orders.job_id_of, range((life + 1) * JOBS)))
    assert checker.faults(shop, ids, orders.PARTS) == []
    print(f"\n{shop.partition(':')[0]}: {life} boundaries")
