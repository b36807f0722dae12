"""`make simulate SEEDS=…`: more seeds than a test has time for, from `--first` or a random seed on."""

from __future__ import annotations

import argparse
import os
import random

from routilux.testing import simulate
from tests.simulation.flows import SCENES


def main() -> None:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many, for all scenes together")
    parser.add_argument("--first", type=int, help="the first seed; default: a random one")
    parser.add_argument("--scene", choices=sorted(SCENES), help="only this flow")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    first = random.randrange(1 << 40) if chosen.first is None else chosen.first
    scenes = [chosen.scene] if chosen.scene else sorted(SCENES)
    for name in scenes:
        seeds = range(first, first + max(1, chosen.seeds // len(scenes)))
        print(f"{name}: seeds {seeds.start} to {seeds.stop - 1}", flush=True)
        print(
            f"  {simulate(**SCENES[name], seeds=seeds, runtimes=4, processes=chosen.processes)}", flush=True
        )


if __name__ == "__main__":
    main()
