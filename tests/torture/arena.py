"""One round: processes that work on a database, faults, and the question at the end whether everything is
there.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, pool

from routilux.store import schema
from tests.crash.support.black_box import COUNTED, BlackBox
from tests.crash.support.pooler import TransactionPooler
from tests.crash.support.program import Acknowledged
from tests.crash.support.proxy import Proxy
from tests.crash.support.zygote import Child, Zygote, until
from tests.support.postgres import PostgresServer
from tests.torture import checker, load, torn
from tests.torture.faults import Fault
from tests.torture.network import BadNetwork
from tests.torture.processes import NOT_STARTED

LEASE_S = 2.0
CUTS = 12  # of the WAL, at each power cut
NUMBERS = 100_000  # for the jobs of one life of a process


class Actor:
    """A process that is started again whenever it has died."""

    def __init__(self, name: str, folder: Path, zygote: Zygote, function: str) -> None:
        self.name = name
        self.box = folder / f"{name}.box"
        self.zygote = zygote
        self.function = function
        self.child: Child | None = None

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid


class Tally:
    """What happened, over all rounds."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()  # by what the process was doing
        self.violations: Counter[str] = Counter()
        self.impossible: set[str] = set()  # tried, and could not be done here
        self.refused = self.jobs = self.retries = self.rounds = self.torn = self.ended = self.readers = 0


class Arena:
    """What the faults of `tests.torture.faults` act on."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        tally: Tally,
        zygotes: list[Zygote],
        server: PostgresServer | None,
        *,
        has_own_disk: bool,
        clock_file: Path | None,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.choose = random.Random(seed)
        self.tally = tally
        self.server = server
        self.network: BadNetwork | None = None
        self.pooler: TransactionPooler | None = None  # of the last runtime
        self.lease_s = LEASE_S
        self.has_own_disk = has_own_disk
        self.clock_file = clock_file
        self.clock_was_set = False
        self.database = f"torture_{seed}"
        *workers, poster, self._other = zygotes
        self.runtimes = [
            Actor(f"runtime{i}", folder, zygote, "tests.torture.processes:work")
            for i, zygote in enumerate(workers)
        ]
        self.poster = Actor("poster", folder, poster, "tests.torture.processes:post")
        self._lives = 0
        self._reader: Any = None
        self._cleanup = ExitStack()

    @property
    def judges_early(self) -> bool:
        """On SQLite the clock of the host says what is due; on Postgres the server's, which is not set."""
        return self.server is not None or not self.clock_was_set

    def _through(self, proxy: Proxy | None) -> str:
        assert proxy is not None
        return make_url(self.direct_url).set(port=proxy.port).render_as_string(hide_password=False)

    # a round

    def __enter__(self) -> Arena:
        if self.server is None:
            self.direct_url = self.url = f"sqlite:///{self.folder / 'torture.db'}"
        else:
            self.direct_url = self.server.create_database(self.database)
            self.network = self._cleanup.enter_context(BadNetwork(self.server.port))
            self.url = self._through(self.network)
            self.pooler = self._cleanup.enter_context(TransactionPooler(self.server.port))
        schema.upgrade(self.direct_url)
        with create_engine(self.direct_url, poolclass=pool.NullPool).begin() as connection:
            load.tables.create_all(connection)
            for statement in load.MOODY_TRIGGER if self.server is not None else ():
                connection.exec_driver_sql(statement)
        self._scratch = Path(
            self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="routilux-torn-"))
        )
        self.reopen_reader()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_reader()
        for actor in [*self.runtimes, self.poster]:
            self.kill(actor)
        self._cleanup.close()
        if self.server is not None:
            self.server.drop_database(self.database)

    def keep_up(self) -> None:
        """Who has died is started again."""
        for actor in [*self.runtimes, self.poster]:
            if not self.is_up(actor):
                self._start(actor)

    def strike(self, fault: Fault) -> None:
        """Do it, and count it if it could be done."""
        if fault.strike(self):
            self.tally.faults[fault.name] += 1
        else:
            self.tally.impossible.add(fault.name)

    def get_going(self) -> None:
        """Faults begin when work does."""
        self.keep_up()
        until(lambda: bool(Acknowledged.read(self.folder / "acknowledged")), "a job is posted")

    def _start(self, actor: Actor) -> None:
        self._lives += 1
        is_pooled = self.pooler is not None and actor is self.runtimes[-1]
        arguments: dict[str, Any] = {
            "url": self._through(self.pooler) if is_pooled else self.url,
            "folder": str(self.folder),
            "first": self._lives * NUMBERS,
        }
        if actor is not self.poster:
            BlackBox(actor.box, is_new=True)
            arguments |= {"box": str(actor.box), "lease_s": self.lease_s}
        actor.child = actor.zygote.start(actor.function, **arguments)

    def is_up(self, actor: Actor) -> bool:
        if actor.child is None:
            return False
        was_over = actor.child.has_ended
        is_over = actor.child.is_over(within_s=0)
        self.tally.ended += is_over and not was_over  # as a program may that finds no database when it starts
        return not is_over

    def kill(self, actor: Actor) -> bool:
        if actor.child is None or not self.is_up(actor):
            return False
        _send(actor.child, signal.SIGKILL)
        actor.child.wait()
        if actor is not self.poster:
            phase = BlackBox(actor.box).phase()
            self.tally.kills[phase if phase in COUNTED else "at rest, or loading"] += 1
        return True

    def take_connections(self, actor: Actor) -> bool:
        """See `processes.work`."""
        actor.box.with_suffix(".exhaust").touch()
        return self.is_up(actor)

    def freeze(self, actor: Actor, seconds: float) -> bool:
        if not self.is_up(actor):
            return False
        assert actor.child is not None
        _send(actor.child, signal.SIGSTOP)
        self.pause(seconds)
        _send(actor.child, signal.SIGCONT)
        return True

    def cut_power(self) -> bool:
        everybody = [actor for actor in [*self.runtimes, self.poster] if self.is_up(actor)]
        acknowledged = Acknowledged.read(self.folder / "acknowledged")
        for actor in everybody:
            assert actor.child is not None
            _send(actor.child, signal.SIGSTOP)
        for actor in everybody:
            until(lambda pid=actor.pid: _is_stopped(pid), "a stopped process stands still")  # type: ignore[misc]
        snapshot = torn.Snapshot(self.folder / "torture.db", acknowledged, self._scratch)
        for actor in everybody:
            assert actor.child is not None
            _send(actor.child, signal.SIGCONT)
        copy = self._scratch / "torn.db"
        for _ in range(CUTS):
            url, expected = snapshot.torn(self.choose, copy)
            self.judge(torn.faults_of(url, expected, judges_early=self.judges_early), "after a power cut")
            self.tally.torn += 1
        return True

    def reopen_reader(self) -> None:
        """A transaction with a snapshot of the empty tables, open for the whole round unless the server ends
        it.
        """
        self._close_reader()
        self._reader = checker.connect(self.direct_url)
        if self.server is None:
            self._reader.execute("BEGIN")
        else:
            self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._seen = self._read()
        self.tally.readers += 1

    def _read(self) -> int:
        return int(self._reader.execute("SELECT count(*) FROM routilux_jobs").fetchone()[0])

    def _close_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(Exception):  # the server may have ended it
                self._reader.close()
            self._reader = None

    def pause(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def come_to_rest(self) -> None:
        """No more faults: the processes stop by themselves, another finishes, and the checker looks."""
        if self.clock_file is not None:
            self.clock_file.write_text("+0\n")
        (self.folder / "stop").touch()
        for actor in [*self.runtimes, self.poster]:
            if actor.child is None or actor.child.wait(60.0) in (0, -9, NOT_STARTED):
                continue
            if actor is self.runtimes[0] and self.clock_file is not None:
                continue  # libfaketime moves CLOCK_MONOTONIC deadlines, so time.sleep fails sometimes
            self.judge_words(
                "orphaned", f"{actor.name} ended with {actor.child.exit_code}: {actor.child.output[-2000:]}"
            )
        if not self.judges_early:
            self._bring_forward()
        child = self._other.start(
            "tests.torture.processes:settle",
            url=self.direct_url,
            folder=str(self.folder),
            lease_s=self.lease_s,
        )
        if child.wait(400.0) != 0:
            self.judge_words("lost", f"the last process did not finish: {child.output[-2000:]}")
        if self._read() != self._seen:
            raise AssertionError("the reader's transaction did not stay open")
        acknowledged, refused = (
            Acknowledged.read(self.folder / name) for name in ("acknowledged", "refused")
        )
        self.tally.refused += len(refused)
        self.judge(
            checker.check(self.direct_url, acknowledged, refused, judges_early=self.judges_early),
            "when all was at rest",
        )
        with closing(checker.connect(self.direct_url)) as connection:
            self.tally.jobs += connection.execute("SELECT count(*) FROM routilux_jobs").fetchone()[0]
            self.tally.retries += connection.execute(
                "SELECT count(*) FROM routilux_activations WHERE status <> 'completed'"
            ).fetchone()[0]

    def _bring_forward(self) -> None:
        """SQLite: a retry that was written while the host's clock was ahead is due by it, hours later, and
        nobody waits here so long.
        """
        with closing(checker.connect(self.direct_url)) as connection:
            connection.execute("UPDATE routilux_parked SET due_at = 0 WHERE due_at IS NOT NULL")
            connection.commit()

    def keep(self) -> Path:
        """A copy of the folder that outlives the round, with the database in it."""
        kept = Path(tempfile.mkdtemp(prefix=f"routilux-torture-{self.seed}-"))
        if self.server is not None:
            (kept / "torture.sql").write_text(self.server.dump(self.database))
        shutil.copytree(self.folder, kept, dirs_exist_ok=True)
        return kept

    def judge(self, faults: checker.Faults, when: str) -> None:
        if faults.counts:
            self.tally.violations += faults.counts
            print(f"{when}: {faults}", flush=True)

    def judge_words(self, kind: str, what: str) -> None:
        faults = checker.Faults()
        faults.add(kind, what)
        self.judge(faults, "at the end")


def _send(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        child.signal(number)


def _is_stopped(pid: int) -> bool:
    """All threads of it: a write that the kernel is at is finished first. So is a process that has ended."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
    except OSError:  # a thread, or all of it, has ended meanwhile
        return not tasks.exists()
    return all(state in "TtZX" for state in states)
