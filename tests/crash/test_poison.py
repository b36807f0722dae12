"""A message that kills its process is set aside; its neighbours lose nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.support import checker, orders
from tests.crash.support.zygote import Zygote, until

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

    # once in company, then three times alone; one that another's death made a suspect: always alone
    deaths = {number: entered.read_text().split().count(str(number)) for number in poison.values()}
    assert set(deaths.values()) <= {3, 4}, deaths
    assert 4 in deaths.values(), deaths
    _assert_set_aside(shop, set(poison.values()))
    _assert_innocent(shop, set(range(*numbers)) - set(poison.values()))


def test_a_poisonous_message_does_not_walk_through_a_fleet(
    shop: str, zygote: Zygote, other_zygote: Zygote, third_zygote: Zygote, tmp_path: Path
) -> None:
    """The second runtime runs the suspect alone and dies of it; the third waits with it and does what else
    there is.
    """
    arguments = {
        "url": shop,
        "acknowledged": str(tmp_path / "acknowledged"),
        "poison": {"exit": 16},
        "entered": str(tmp_path / "entered"),
        "workers": ["poisoned", "healthy"],
        "pause_s": 3600.0,
    }
    owner = zygote.start(PROGRAM, **arguments, numbers=(0, 30))
    assert owner.wait() == 66, owner.output
    stop = tmp_path / "stop"
    others = [each.start(PROGRAM, **arguments, stop=str(stop)) for each in (other_zygote, third_zygote)]
    until(lambda: [child for child in others if child.is_over(within_s=0.01)], "nobody runs the suspect")
    second, third = sorted(others, key=lambda child: not child.has_ended)
    assert second.exit_code == 66, second.output

    def states() -> tuple[int, list[tuple[str, int]]]:
        with closing(checker.connect(shop)) as connection:
            (open_jobs,) = connection.execute(
                "SELECT count(*) FROM routilux_jobs AS j JOIN routilux_workers AS w ON w.key = j.worker"
                " WHERE w.worker_id = 'healthy' AND j.status <> 'completed'"
            ).fetchone()
            suspects = connection.execute(
                "SELECT reason, max(deaths) FROM routilux_parked GROUP BY reason"
            ).fetchall()
        return open_jobs, suspects

    until(lambda: states() == (0, [("suspect", 1)]), "the healthy worker does not get on", third)
    stop.touch()
    assert third.wait() == 0, third.output


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
    """Completed, each effect once, at the first attempt;
    no activation of theirs is counted as anything else.
    """
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
