"""What can go wrong, each as one function of the arena; the weights say how often."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture import checker

if TYPE_CHECKING:
    from tests.torture.arena import Arena

SQLITE, POSTGRES = "sqlite", "postgres"


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    databases: tuple[str, ...]
    weight: int
    strike: Callable[[Arena], bool]  # False: not possible now


ALL: list[Fault] = []


def fault(
    name: str, weight: int, databases: tuple[str, ...] = (SQLITE, POSTGRES)
) -> Callable[[Callable[[Arena], bool]], Callable[[Arena], bool]]:
    def add(strike: Callable[[Arena], bool]) -> Callable[[Arena], bool]:
        ALL.append(Fault(name, databases, weight, strike))
        return strike

    return add


@fault("SIGKILL of a runtime", 60)
def kill_runtime(arena: Arena) -> bool:
    return arena.kill(arena.choose.choice(arena.runtimes))


@fault("SIGKILL of the process that posts", 3)
def kill_poster(arena: Arena) -> bool:
    return arena.kill(arena.poster)


@fault("SIGKILL of all processes at once", 3)
def kill_all(arena: Arena) -> bool:
    return sum(arena.kill(actor) for actor in [*arena.runtimes, arena.poster]) > 1


@fault("SIGSTOP past the lease, SIGCONT", 2)
def freeze(arena: Arena) -> bool:
    """Frozen inside a transaction it holds a SQLite file for everybody, as any process would."""
    actor = arena.choose.choice(arena.runtimes)
    return arena.freeze(actor, arena.lease_s * 1.3)


@fault("SIGSTOP for a moment, SIGCONT", 4)
def hiccup(arena: Arena) -> bool:
    return arena.freeze(arena.choose.choice(arena.runtimes), arena.choose.uniform(0.05, 0.5))


@fault("all pooled connections taken", 2)
def exhaust_pool(arena: Arena) -> bool:
    return arena.take_connections(arena.choose.choice(arena.runtimes))


@fault("disk full", 4, (SQLITE,))
def fill_disk(arena: Arena) -> bool:
    """A ballast file takes what is left of the file system, which is the rig's own."""
    if not arena.has_own_disk:
        return False
    ballast = arena.folder / "ballast"
    free = os.statvfs(arena.folder)
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(1, (free.f_bavail - 1) * free.f_frsize))
        while True:
            file.write(b"x" * 4096)
    arena.pause(arena.choose.uniform(0.1, 1.0))
    ballast.unlink()
    return True


@fault("writes of a process fail (RLIMIT_FSIZE)", 4, (SQLITE,))
def io_errors(arena: Arena) -> bool:
    actor = arena.choose.choice(arena.runtimes)
    if not arena.is_up(actor):
        return False
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        resource.prlimit(actor.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        arena.pause(arena.choose.uniform(0.05, 0.6))
        resource.prlimit(actor.pid, resource.RLIMIT_FSIZE, unlimited)
    except ProcessLookupError:
        return False
    return True


@fault("clock set (libfaketime)", 4)
def step_clock(arena: Arena) -> bool:
    if arena.clock_file is None:
        return False
    arena.clock_was_set = True
    arena.clock_file.write_text(f"{arena.choose.choice((-1, 1)) * arena.choose.randrange(1, 7200):+d}\n")
    return True


@fault("power cut: the WAL torn at a random byte", 6, (SQLITE,))
def power_cut(arena: Arena) -> bool:
    return arena.cut_power()


@fault("SIGKILL of Postgres", 4, (POSTGRES,))
def kill_postgres(arena: Arena) -> bool:
    assert arena.server is not None
    arena.server.kill9()
    arena.pause(arena.choose.uniform(0.0, 1.0))
    arena.server.start()
    arena.reopen_reader()
    return True


@fault("pg_terminate_backend", 12, (POSTGRES,))
def terminate_backend(arena: Arena) -> bool:
    assert arena.server is not None
    arena.server.execute(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE backend_type ="
        " 'client backend'"
        f" AND pid <> pg_backend_pid() AND datname = '{arena.database}' ORDER BY random() LIMIT"
        f" {arena.choose.randint(1, 3)}) AS chosen"
    )
    arena.reopen_reader()
    return True


@fault("connections reset", 6, (POSTGRES,))
def reset(arena: Arena) -> bool:
    assert arena.network is not None
    arena.network.reset()
    return True


@fault("network stalled", 4, (POSTGRES,))
def stall(arena: Arena) -> bool:
    assert arena.network is not None
    arena.network.stall()
    arena.pause(arena.choose.choice((0.2, 1.0, arena.lease_s * 1.3)))
    arena.network.flow()
    return True


@fault("connections hung up, what was sent is read later", 6, (POSTGRES,))
def hang_up(arena: Arena) -> bool:
    """Whoever sends it again meets, now and then, a trigger that refuses it."""
    assert arena.network is not None
    is_bad = arena.choose.random() < 0.5
    arena.network.hold()
    arena.pause(arena.choose.uniform(0.05, 0.3))
    with contextlib.closing(checker.connect(arena.direct_url)) as operator:
        if is_bad:
            operator.execute("INSERT INTO mood VALUES (true)")
            operator.commit()
        arena.network.hang_up()
        arena.pause(arena.choose.choice((0.04, 0.08, 0.6)))
        operator.execute("DELETE FROM mood")
        operator.commit()
    arena.network.deliver()
    return True


@fault("the pooler closes its server connections", 6, (POSTGRES,))
def retire(arena: Arena) -> bool:
    assert arena.pooler is not None
    arena.pooler.retire()
    return True


@fault("no connection left in the server", 2, (POSTGRES,))
def exhaust_server(arena: Arena) -> bool:
    import psycopg

    with contextlib.ExitStack() as held:
        with contextlib.suppress(psycopg.Error):
            while True:
                held.enter_context(contextlib.closing(checker.connect(arena.direct_url)))
        arena.pause(0.5)
    return True


def of(database: str) -> list[Fault]:
    return [each for each in ALL if database in each.databases]


def library_of_faketime() -> Path | None:
    """libfaketime, where distributions put it, or as `FAKETIME_LIB` says."""
    places = [Path(os.environ["FAKETIME_LIB"])] if "FAKETIME_LIB" in os.environ else []
    places += Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return next((place for place in places if place.exists()), None)
