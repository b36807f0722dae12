"""Other systems, measured in the same run with BENCH_PEERS=1: who they are, and their best documented
configuration.

Each is installed by pip into a virtual environment of its own, `.venv-peers/NAME`, when it is first needed. A
driver (`NAME_peer.py`, on top of `driver.py`) runs there. What cannot be had is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from tests.benchmarks.bench import POSTGRES, ROOT, SQLITE, Bench, Skipped
from tests.benchmarks.figure import Role, Series, Values

FOLDER = Path(__file__).resolve().parent
VENVS = ROOT / ".venv-peers"
TIMEOUT_S = 400
Measured = Mapping[str, tuple[str, int]]  # what the driver measures -> configuration, how many


@dataclass(frozen=True, slots=True)
class Peer:
    """`kind`: the database beside whose figures it stands. `python`: the least version it needs."""

    name: str
    driver: str
    venv: str
    requires: tuple[str, ...]
    kind: str
    measured: Measured
    python: tuple[int, int] = (3, 11)

    @property
    def has_server(self) -> bool:
        return self.kind == POSTGRES


def _upstream(version: str) -> Peer:
    sizes = {"pipeline": 10_000, "drain": 10_000, "enqueue": 1_000, "latency": 200, "idle": 12}
    return Peer(
        f"upstream routilux {version}, in memory",
        "upstream_peer.py",
        f"upstream-{version}",
        (f"routilux=={version}",),
        SQLITE,
        {what: ("w64", count) for what, count in sizes.items()},
    )


_OLD, _NEW = _upstream("0.15.3"), _upstream("1.1.0")
IN_MEMORY = _NEW.name
PGQUEUER = "PgQueuer 1.6"
_DBOS = {
    "enqueue": ("fast", 1_000),
    "bulk": ("fast", 5_000),
    "drain": ("fast", 1_000),
    "pipeline": ("fast", 400),
}
_DBOS_LATER = {"latency": ("fast", 200), "delay": ("fast", 30), "idle": ("fast", 12)}

PEERS = (
    _OLD,
    _NEW,
    Peer(
        "huey 3.5",
        "huey_peer.py",
        "huey",
        ("huey>=3.5,<3.6",),
        SQLITE,
        {
            "pipeline": ("w1", 3_000),
            "drain": ("w1", 8_000),
            "enqueue": ("w1", 5_000),
            "latency": ("poll10ms", 200),
            "delay": ("poll10ms", 30),
            "idle": ("w1", 12),
        },
    ),
    Peer(
        "persist-queue 1.1",
        "persistqueue_peer.py",
        "persistqueue",
        ("persist-queue>=1.1,<1.2",),
        SQLITE,
        {"pipeline": ("t1", 2_000), "drain": ("t1", 4_000), "enqueue": ("t1", 5_000), "latency": ("t1", 200)},
    ),
    Peer("DBOS 3.4", "dbos_peer.py", "dbos", ("dbos>=3.4,<3.5",), SQLITE, _DBOS | _DBOS_LATER),
    Peer(
        PGQUEUER,
        "pgqueuer_peer.py",
        "pgqueuer",
        ("pgqueuer[asyncpg,psycopg]>=1.6,<1.7", "asyncpg", "uvloop"),
        POSTGRES,
        {
            "pipeline": ("b250pool", 3_000),
            "drain": ("b250", 20_000),
            "enqueue": ("b10", 4_000),
            "bulk": ("b10", 50_000),
            "latency": ("b10", 200),
            "delay": ("b10", 30),
            "idle": ("b10", 12),
        },
    ),
    Peer(
        "oban 0.7",
        "oban_peer.py",
        "oban",
        ("oban>=0.7,<0.8", "uvloop"),
        POSTGRES,
        {
            "pipeline": ("l100", 2_000),
            "drain": ("l100", 8_000),
            "enqueue": ("l10", 2_000),
            "bulk": ("l10", 10_000),
            "latency": ("l10", 200),
            "delay": ("l10", 30),
            "idle": ("l10", 12),
        },
        python=(3, 12),
    ),
    Peer(
        "procrastinate 3.10",
        "procrastinate_peer.py",
        "procrastinate",
        ("procrastinate>=3.10,<3.11",),
        POSTGRES,
        {
            "pipeline": ("c20", 600),
            "drain": ("c20", 1_500),
            "enqueue": ("c1", 2_000),
            "bulk": ("c1", 20_000),
            "latency": ("c1", 200),
            "delay": ("c1", 30),
            "idle": ("c1", 12),
        },
    ),
    Peer("DBOS 3.4", "dbos_peer.py", "dbos", ("dbos>=3.4,<3.5",), POSTGRES, _DBOS | _DBOS_LATER),
    Peer(
        "taskiq-pg 0.2",
        "taskiqpg_peer.py",
        "taskiqpg",
        ("taskiq-pg==0.2.0", "taskiq<0.12", "asyncpg"),
        POSTGRES,
        {
            "pipeline": ("r100", 1_500),
            "drain": ("r100", 4_000),
            "enqueue": ("r100", 2_000),
            "latency": ("r100", 200),
            "idle": ("r100", 12),
        },
    ),
)


def series(what: str, kind: str) -> tuple[Series, ...]:
    """Those that stand beside the figures of this database and can be measured in this."""
    return tuple(_series(peer, what) for peer in PEERS if peer.kind == kind and what in peer.measured)


def _series(peer: Peer, what: str) -> Series:
    config, count = peer.measured[what]

    def run(bench: Bench) -> Values:
        python = installed(peer)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=bench.folder))
            told = {**os.environ, "BENCH_FOLDER": folder}
            told.pop("PYTHONPATH", None)
            if peer.has_server:
                url = make_url(stack.enter_context(bench.empty_postgres())).set(drivername="postgresql")
                told["BENCH_DSN"] = url.render_as_string(hide_password=False)
            return _measured(
                python, peer, [what, config, str(bench.scaled(count, max(10, count // 10)))], told
            )

    return Series(peer.name, run, Role.PEER)


def _measured(python: Path, peer: Peer, words: list[str], told: dict[str, str]) -> Values:
    done = subprocess.run(
        [str(python), str(FOLDER / peer.driver), "measure", *words],
        env=told,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=FOLDER,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{peer.driver} {' '.join(words)}: {done.stderr[-600:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def installed(peer: Peer) -> Path:
    """The Python of a peer's environment, which is made if need be. Raises `Skipped` with the reason."""
    home = VENVS / peer.venv
    python, ready = home / "bin" / "python", home / ".ready"
    if ready.exists() and ready.read_text().split("\n") == list(peer.requires):
        return python
    base = _interpreter(peer.python)
    if base is None:
        raise Skipped(f"it needs Python {'.'.join(map(str, peer.python))} or newer, and there is none here")
    print(f"    installing {', '.join(peer.requires)}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    own = ("psutil", "psycopg[binary,pool]") if peer.has_server or "dbos" in peer.venv else ("psutil",)
    for command in (
        [base, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *peer.requires, *own],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Skipped(f"it could not be installed: {done.stderr.strip()[-300:]}")
    ready.write_text("\n".join(peer.requires))
    return python


def _interpreter(least: tuple[int, int]) -> str | None:
    """This one if it is new enough, else one that starts, of those that are on the path or that pyenv has."""
    if sys.version_info[:2] >= least:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(least[1], least[1] + 4)]
    roots = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [path for name in names if (path := shutil.which(name))]
    found += [str(path) for name in names for path in sorted(roots.glob(f"*/bin/{name}"))]
    return next((path for path in found if _starts(path)), None)


def _starts(path: str) -> bool:
    return subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0
