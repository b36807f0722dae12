"""The table at the end of a run."""

from __future__ import annotations

from tests.crash.support.black_box import COUNTED
from tests.torture import checker, faults
from tests.torture.arena import Tally


def table(kind: str, tally: Tally, seed: int) -> str:
    """What was done to a database, and what came of it."""
    rows: list[tuple[str, object]] = [
        *((fault.name, _times(tally, fault.name)) for fault in faults.of(kind)),
        ("a reader's transaction: begun, as the server had ended it or a round began", tally.readers),
        *((f"killed: {phase}", tally.kills[phase]) for phase in (*COUNTED, "at rest, or loading")),
        ("kills with an activation or a commit under way", sum(tally.kills[phase] for phase in COUNTED)),
        *([("torn WALs opened", tally.torn)] if kind == faults.SQLITE else []),
        ("processes that ended by themselves", tally.ended),
        ("jobs done", tally.jobs),
        ("posts that were refused", tally.refused),
        ("attempts that failed or were discarded", tally.retries),
        *((f"VIOLATIONS: {each}", tally.violations[each]) for each in checker.KINDS),
    ]
    width = max(len(name) for name, _ in rows)
    head = f"\n{kind}: {tally.rounds} rounds, seeds {seed} to {seed + tally.rounds - 1}"
    return "\n".join([head, *(f"{name:{width}}  {value}" for name, value in rows)])


def _times(tally: Tally, name: str) -> object:
    if name not in tally.faults and name in tally.impossible:
        return "tried, not possible"
    return tally.faults[name]
