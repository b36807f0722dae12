"""SIGKILL at every phase, again and again on one database, and at the end everything is done once.

A kill counts if an activation was running or a commit was open: the process keeps a black box that outlives
it. `ROUTILUX_KILLS` asks for more than 28 counted kills per database.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.support import checker, orders
from tests.crash.support.black_box import COUNTED, BlackBox
from tests.crash.support.program import Acknowledged
from tests.crash.support.zygote import Zygote

KILLS = int(os.environ.get("ROUTILUX_KILLS", "28"))
MOST_PASSES = {
    "posting": 8,
    "in logic": 40,
    "before COMMIT": 25,
    "in COMMIT": 25,
    "after COMMIT": 25,
    "recovering": 1,
    "loading": 1,
}
JOBS_A_ROUND = 12


def test_killed_at_any_instant_everything_is_done_once(
    shop: str, zygote: Zygote, acknowledged: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    seed = int(os.environ.get("ROUTILUX_SEED", random.randrange(1 << 30)))
    choose, counted, lost = random.Random(seed), Counter[str](), 0
    planned = _plans(choose)
    number = 0
    while counted.total() < KILLS or not all(counted[phase] for phase in COUNTED):
        assert lost < 3 * KILLS, f"hardly any kill counts: {counted}, seed {seed}"
        phase = planned.pop() if planned else choose.choice([*COUNTED, None])
        number += JOBS_A_ROUND
        died_in = _kill(zygote, choose, phase, shop, acknowledged, tmp_path / "box", (0, number))
        if died_in in COUNTED:
            counted[died_in] += 1
        else:
            lost += 1
    _finish(zygote, shop, acknowledged, number, seed)
    phases = ", ".join(f"{phase} {counted[phase]}" for phase in COUNTED)
    record_property(
        "kills",
        f"{shop.partition(':')[0]} {counted.total()} ({phases}), {lost} more did not count, seed {seed}",
    )


def _plans(choose: random.Random) -> list[str | None]:
    """Each phase in turn, and as many kills from outside at any instant."""
    plans: list[str | None] = [
        phase for phase in MOST_PASSES for _ in range(max(1, KILLS * 3 // 4 // len(MOST_PASSES)))
    ]
    plans += [None] * (KILLS - len(plans))
    choose.shuffle(plans)
    return plans


def _kill(
    zygote: Zygote,
    choose: random.Random,
    phase: str | None,
    url: str,
    acknowledged: Path,
    box: Path,
    numbers: tuple[int, int],
) -> str | None:
    """One life: where it ended, or None if that does not count."""
    black_box = BlackBox(box, is_new=True)
    child = zygote.start(
        "tests.crash.support.program:work",
        url=url,
        acknowledged=str(acknowledged),
        box=str(box),
        workers=["left", "right"],
        numbers=numbers,
        group=choose.choice((1, 1, 3)),
        phase=phase,
        delay_us=choose.randrange(0, 400),
        passes=choose.randint(1, MOST_PASSES[phase]) if phase else 0,
    )
    if phase is None and not child.is_over(within_s=choose.uniform(0.02, 0.5)):
        child.kill()
    assert child.wait() in (0, -9), child.output
    return black_box.phase() if child.exit_code == -9 else None


def _finish(zygote: Zygote, url: str, acknowledged: Path, number: int, seed: int) -> None:
    child = zygote.start(
        "tests.crash.support.program:work",
        url=url,
        acknowledged=str(acknowledged),
        workers=["left", "right"],
        numbers=(0, number),
    )
    assert child.wait() == 0, f"seed {seed}: {child.output}"
    ids = Acknowledged.read(acknowledged)
    assert ids == set(map(orders.job_id_of, range(number)))
    assert checker.faults(url, ids, orders.PARTS) == [], f"seed {seed}"
