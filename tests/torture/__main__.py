"""`python -m tests.torture --minutes M [--database sqlite|postgres|both] [--seed N] [--pause S]`

Rounds of about half a minute, each on a new database. Prints a table per database; ends with 1 if anything
was lost, doubled, orphaned, out of order or early. A round that found something keeps its folder with the
database and says how to run it again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.crash.support.zygote import Zygote
from tests.support.postgres import PostgresServer
from tests.torture import faults, report
from tests.torture.arena import Arena, Tally

ROUND_S = 30.0
RUNTIMES = 3
DISK_MB = 768
OWN_DISK = "ROUTILUX_TORTURE_DISK"  # a file system that this process has mounted for itself


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--minutes", type=float, default=10.0, help="per database")
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of the first round")
    parser.add_argument("--pause", type=float, default=0.12, help="seconds between two faults, on average")
    parser.add_argument("--faults", type=int, default=1_000_000, help="end after so many")
    parser.add_argument("--only", default="", help="faults whose name begins so")
    options = parser.parse_args()
    kinds = [faults.SQLITE, faults.POSTGRES] if options.database == "both" else [options.database]
    if faults.SQLITE in kinds and OWN_DISK not in os.environ and _can_mount():
        return _again_on_own_disk()
    tallies = {kind: torture(kind, options) for kind in kinds}
    for kind, tally in tallies.items():
        print(report.table(kind, tally, options.seed))
    return int(any(tally.violations for tally in tallies.values()))


def torture(kind: str, options: argparse.Namespace) -> Tally:
    """Rounds with the seeds `seed`, `seed` + 1, …"""
    tally, seed = Tally(), options.seed
    until = time.monotonic() + options.minutes * 60
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="routilux-torture-")))
        server = PostgresServer().start() if kind == faults.POSTGRES else None
        if server is not None:
            stack.callback(server.remove)
        clock_file = _clock_file(home)
        zygotes = [
            stack.enter_context(Zygote(home, _environment(clock_file, i))) for i in range(RUNTIMES + 2)
        ]
        disk = os.environ.get(OWN_DISK) if kind == faults.SQLITE else None
        while (left_s := until - time.monotonic()) > 0:
            folder = Path(tempfile.mkdtemp(prefix=f"{seed}-", dir=disk or home))
            arena = Arena(
                folder, seed, tally, zygotes, server, has_own_disk=disk is not None, clock_file=clock_file
            )
            _round(kind, arena, options, min(ROUND_S, left_s))
            shutil.rmtree(folder)
            seed += 1
            if options.faults < sum(tally.faults.values()) + 1:
                break
    return tally


def _round(kind: str, arena: Arena, options: argparse.Namespace, round_s: float) -> None:
    tally = arena.tally
    before = tally.violations.total()
    chosen = [fault for fault in faults.of(kind) if fault.name.startswith(options.only)]
    weights = [fault.weight for fault in chosen]
    with arena:
        arena.get_going()
        until = time.monotonic() + round_s
        while time.monotonic() < until and sum(tally.faults.values()) < options.faults:
            arena.keep_up()
            arena.pause(arena.choose.uniform(0, 2 * options.pause))
            fault = arena.choose.choices(chosen, weights)[0]
            arena.strike(fault)
        arena.come_to_rest()
        kept = arena.keep() if tally.violations.total() > before else None
    tally.rounds += 1
    if kept is not None:
        again = f"python -m tests.torture --database {kind} --seed {arena.seed} --minutes 1"
        print(f"seed {arena.seed}: {kept}; again: {again}", flush=True)


def _clock_file(home: Path) -> Path | None:
    if faults.library_of_faketime() is None:
        return None
    path = home / "clock"
    path.write_text("+0\n")
    return path


def _environment(clock_file: Path | None, number: int) -> dict[str, str]:
    """One runtime lives by a clock that is set now and then; the monotonic clock stays,
    or waits would hang.
    """
    library = faults.library_of_faketime()
    if clock_file is None or library is None or number != 0:
        return {}
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock_file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _can_mount() -> bool:
    probe = ["unshare", "-Urm", "true"] if os.geteuid() else ["unshare", "-m", "true"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


def _again_on_own_disk() -> int:
    """The same command in a mount namespace of its own, with a small file system that may be filled."""
    namespace = ["unshare", "-Urm"] if os.geteuid() else ["unshare", "-m"]
    with tempfile.TemporaryDirectory(prefix="routilux-disk-") as disk:
        mount = f'mount -t tmpfs -o size={DISK_MB}m tmpfs "{disk}" && exec "$@"'
        command = [*namespace, "sh", "-c", mount, "sh", sys.executable, "-m", "tests.torture", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, OWN_DISK: disk}).returncode


if __name__ == "__main__":
    sys.exit(main())
