"""`python -m tests.torture --minutes M [--database sqlite|postgres|both] [--seed N] [--pause S]`

Rounds of about a minute, each on a new database. Prints a table per database; ends with 1 if anything was lost, doubled,
orphaned, out of order or early. A round that found something keeps its folder and says how to run it again.
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

ROUND_S = 60.0
RUNTIMES = 3
DISK_MB = 512
OWN_DISK = "ROUTILUX_TORTURE_DISK"  # a file system that this process has mounted for itself


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--minutes", type=float, default=10.0, help="per database")
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of the first round")
    parser.add_argument("--pause", type=float, default=0.12, help="seconds between two faults, on average")
    parser.add_argument("--only", default="", help="faults whose name begins so")
    options = parser.parse_args()
    kinds = [faults.SQLITE, faults.POSTGRES] if options.database == "both" else [options.database]
    if faults.SQLITE in kinds and OWN_DISK not in os.environ and _can_mount():
        return _again_on_own_disk()
    tallies = {
        kind: torture(kind, options.minutes, options.seed, options.pause, options.only) for kind in kinds
    }
    for kind, tally in tallies.items():
        print(report.table(kind, tally, options.seed))
    return int(any(tally.violations for tally in tallies.values()))


def torture(kind: str, minutes: float, seed: int, pause_s: float, only: str = "") -> Tally:
    """Rounds with the seeds `seed`, `seed` + 1, …"""
    tally = Tally()
    until = time.monotonic() + minutes * 60
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="routilux-torture-")))
        server = PostgresServer().start() if kind == faults.POSTGRES else None
        if server is not None:
            stack.callback(server.remove)
        clock_file = _clock_file(home)
        zygotes = [
            stack.enter_context(Zygote(home, _environment(clock_file, i))) for i in range(RUNTIMES + 2)
        ]
        while time.monotonic() < until:
            round_s = min(ROUND_S, until - time.monotonic())
            disk = os.environ.get(OWN_DISK) if kind == faults.SQLITE else None
            folder = Path(tempfile.mkdtemp(prefix=f"{seed}-", dir=disk or home))
            _round(kind, folder, seed, round_s, pause_s, tally, zygotes, server, clock_file, only)
            seed += 1
    return tally


def _round(
    kind: str, folder: Path, seed: int, round_s: float, pause_s: float, tally: Tally, zygotes: list[Zygote],
    server: PostgresServer | None, clock_file: Path | None, only: str,
) -> None:  # fmt: skip
    before = tally.violations.total()
    has_own_disk = OWN_DISK in os.environ
    with Arena(
        folder, seed, tally, zygotes, server, has_own_disk=has_own_disk, clock_file=clock_file
    ) as arena:
        chosen = [fault for fault in faults.of(kind) if fault.name.startswith(only)]
        weights = [fault.weight for fault in chosen]
        until = time.monotonic() + round_s
        while time.monotonic() < until:
            arena.keep_up()
            arena.pause(arena.choose.uniform(0, 2 * pause_s))
            fault = arena.choose.choices(chosen, weights)[0]
            tally.faults[fault.name] += fault.strike(arena)
        arena.come_to_rest()
    tally.rounds += 1
    if tally.violations.total() > before:
        kept = Path(tempfile.mkdtemp(prefix=f"routilux-torture-{seed}-"))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        print(
            f"seed {seed}: {kept}; again: python -m tests.torture --database {kind} --seed {seed} --minutes 1",
            flush=True,
        )
    shutil.rmtree(folder)


def _clock_file(home: Path) -> Path | None:
    if faults.library_of_faketime() is None:
        return None
    path = home / "clock"
    path.write_text("+0\n")
    return path


def _environment(clock_file: Path | None, number: int) -> dict[str, str]:
    """One runtime lives by a clock that is set now and then; the monotonic clock stays, or waits would hang."""
    library = faults.library_of_faketime()
    if clock_file is None or library is None or number != 0:
        return {}
    return {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock_file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


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
