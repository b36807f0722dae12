"""A message that kills its process is set aside; its neighbours lose nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.support import checker, orders
from tests.crash.support.zygote import Zygote

INNOCENT = 50
POISONED = {"exit": 17, "segfault": 31}
PROGRAM = "tests.crash.support.program:poisoned"


@pytest.mark.parametrize(
    "poison", [{"exit": 17}, {"segfault": 31}, POISONED], ids=["os._exit", "a segfault", "both"]
)
def test_a_message_that_kills_its_process_becomes_a_dead_letter(
    shop: str, zygote: Zygote, acknowledged: Path, tmp_path: Path, poison: dict[str, int]
) -> None:
    entered = tmp_path / "entered"
    numbers = (0, INNOCENT + len(poison))
    for _life in range(4 * len(poison) + 1):
        child = zygote.start(
            PROGRAM,
            url=shop,
            acknowledged=str(acknowledged),
            numbers=numbers,
            poison=poison,
            entered=str(entered),
        )
        if child.wait() == 0:
            break
        assert child.exit_code in (-11, 66), child.output
    else:
        pytest.fail(f"still dying after {_life + 1} lives: {child.output}")

    # once in company, then three times alone; one that another's death made a suspect has been alone from the start
    deaths = {number: entered.read_text().split().count(str(number)) for number in poison.values()}
    assert set(deaths.values()) <= {3, 4}, deaths
    assert 4 in deaths.values(), deaths
    _assert_set_aside(shop, set(poison.values()))
    _assert_innocent(shop, set(range(*numbers)) - set(poison.values()))


def _assert_set_aside(url: str, numbers: set[int]) -> None:
    with closing(checker.connect(url)) as connection:
        found = connection.execute(
            "SELECT j.job_id, j.status, j.error, m.status, p.error_type FROM routilux_parked AS p"
            " JOIN routilux_messages AS m ON m.worker = p.worker AND m.seq = p.seq"
            " JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job WHERE p.reason = 'dead'"
        ).fetchall()
        others = connection.execute("SELECT * FROM routilux_parked WHERE reason <> 'dead'").fetchall()
    assert others == []
    assert {job_id for job_id, *_ in found} == set(map(orders.job_id_of, numbers))
    for _job_id, job_status, job_error, message_status, error_type in found:
        assert (job_status, message_status, error_type) == ("failed", "dead", "ProcessDiedError")
        assert job_error.startswith("ProcessDiedError")


def _assert_innocent(url: str, numbers: set[int]) -> None:
    """Completed, each effect once, at the first attempt; no activation of theirs is counted as anything else."""
    with closing(checker.connect(url)) as connection:
        completed = connection.execute(
            "SELECT job_id FROM routilux_jobs WHERE status = 'completed'"
        ).fetchall()
        tried = connection.execute(
            "SELECT DISTINCT j.job_id, a.status, a.attempt FROM routilux_activations AS a"
            " JOIN routilux_jobs AS j ON j.worker = a.worker AND j.job = a.job"
        ).fetchall()
        stored = connection.execute("SELECT job_id, part FROM orders").fetchall()
    ids = set(map(orders.job_id_of, numbers))
    assert {job_id for (job_id,) in completed} == ids
    assert [row for row in tried if row[0] in ids and tuple(row[1:]) != ("completed", 1)] == []
    rows = [tuple(row) for row in stored if row[0] in ids]
    assert sorted(rows) == sorted((job_id, part) for job_id in ids for part in range(orders.PARTS))
