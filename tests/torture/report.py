"""The table at the end of a run."""

from __future__ import annotations

from tests.crash.support.black_box import COUNTED
from tests.torture import checker, faults
from tests.torture.arena import Tally


def table(kind: str, tally: Tally, seed: int) -> str:
    """What was done to a database, and what came of it."""
    counted = sum(tally.kills[phase] for phase in COUNTED)
    rows: list[tuple[str, object]] = [
        (fault.name, tally.faults[fault.name] or "never: not possible here") for fault in faults.of(kind)
    ]
    rows += [("a reader's transaction", "open all the time")]
    rows += [(f"killed: {phase}", tally.kills[phase]) for phase in (*COUNTED, "at rest, or loading")]
    rows += [
        ("kills with an activation or a commit under way", counted),
        ("torn WALs opened", tally.torn),
        ("processes that ended by themselves", tally.ended),
        ("jobs done", tally.jobs),
        ("attempts that failed or were discarded", tally.retries),
    ]
    rows += [(f"VIOLATIONS: {each}", tally.violations[each]) for each in checker.KINDS]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{name:{width}}  {value}" for name, value in rows if kind == faults.SQLITE or "torn" not in name
    ]
    return "\n".join([f"\n{kind}: {tally.rounds} rounds, seeds {seed} to {seed + tally.rounds - 1}", *lines])
