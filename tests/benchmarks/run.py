"""`make bench`: measure the selected figures, each in turns with its limits, and write docs/benchmarks.

Nothing is asserted: a target that is not met is a line that says so. Every figure is written as soon as it is
measured, so a run can be cut short and gone on with (`--resume`).
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from pathlib import Path

from tests.benchmarks import plot, results, table
from tests.benchmarks.bench import ROOT, Bench, Skipped
from tests.benchmarks.figure import Figure, Role, Values, judge
from tests.benchmarks.registry import FIGURES, select

RUNS = 5


def main() -> None:
    asked = _arguments()
    figures = select(asked.only, is_full=asked.full)
    if asked.list:
        for figure in FIGURES:
            print(f"{figure.name:32}{'(full) ' if figure.is_full else ''}{figure.title}")
        return
    where = results.surroundings(ROOT, is_quick=asked.quick)
    if asked.resume:
        known = results.read(asked.out)
        figures = [f for f in figures if known.get(f.name, {}).get("commit") != where["commit"]]
    begun = time.monotonic()
    with Bench(is_quick=asked.quick) as bench:
        for number, figure in enumerate(figures, 1):
            print(f"[{number}/{len(figures)} {time.monotonic() - begun:5.0f} s] {figure.title}", flush=True)
            runs, notes = measure(bench, figure, asked.runs, with_peers=asked.peers)
            if any(runs.values()):
                results.merge(asked.out, figure, runs, where, notes)
                write(asked.out)
            for target in figure.targets:
                verdict = judge(figure, target, runs)
                print(f"    must reach {verdict.words}: {verdict.is_met}", flush=True)
    print(f"written to {asked.out} after {time.monotonic() - begun:.0f} s", flush=True)


def measure(bench: Bench, figure: Figure, count: int, *, with_peers: bool) -> tuple[results.Runs, list[str]]:
    """All runs of a figure, in turns. A series that fails is left out from then on, with a note."""
    chosen = [series for series in figure.series if with_peers or series.role is not Role.PEER]
    runs: results.Runs = {series.name: [] for series in chosen}
    notes: dict[str, str] = {}
    for number in range(count):
        for series in chosen:
            if series.name in notes:
                continue
            try:
                load = os.getloadavg()[0]
                values: Values = {**series.run(bench), "load_before": round(load, 2)}
            except Exception as error:  # one series must not stop the others
                notes[series.name] = f"{series.name} was not measured: {error}"
                print(f"    {notes[series.name]}", flush=True)
                if not isinstance(error, Skipped):
                    traceback.print_exc()
                continue
            runs[series.name].append(values)
            told = ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
            print(f"    {number + 1}/{count} {series.name}: {told}", flush=True)
    return runs, list(notes.values())


def write(folder: Path) -> None:
    """The page and the plot of all that is known."""
    measured = results.read(folder)
    (folder / "latest.md").write_text(table.page(FIGURES, measured), encoding="utf-8")
    (folder / "latest.svg").write_text(plot.picture(table.targets(FIGURES, measured)), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="figures that begin so; repeatable"
    )
    parser.add_argument("--runs", type=int, metavar="N", help=f"runs of each series, {RUNS} by default")
    parser.add_argument(
        "--quick", action="store_true", help="one short run of each, written to build/benchmarks"
    )
    parser.add_argument("--resume", action="store_true", help="leave out what was measured at this commit")
    parser.add_argument(
        "--peers",
        action="store_true",
        default=os.environ.get("BENCH_PEERS") == "1",
        help="also other systems, as BENCH_PEERS=1 does",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        default=os.environ.get("BENCH_FULL") == "1",
        help="also the large fills, as BENCH_FULL=1 does",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="docs/benchmarks by default")
    parser.add_argument("--list", action="store_true", help="name the figures")
    asked = parser.parse_args()
    asked.runs = asked.runs or (1 if asked.quick else RUNS)
    asked.out = asked.out or ROOT / ("build/benchmarks" if asked.quick else "docs/benchmarks")
    return asked


if __name__ == "__main__":
    main()
