"""What befalls a world: its processes, its host, logic, and the transactions on its file."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from typing import TYPE_CHECKING

from routilux.ownership import takeover
from routilux.store.errors import Fenced
from routilux.store.writes.store import Commit
from routilux.testing.simulation.database import Crash, database_error
from routilux.testing.simulation.process import LONG_S, Process

if TYPE_CHECKING:
    from routilux.testing.simulation.world import World

HOUR_S = 3600.0
STEP_S = 0.5  # below `timeouts.MOST_S`: a process that is not looked at for longer was stopped


class Accidents:
    """Steps are methods; each takes the number that decides what is left open."""

    def __init__(self, world: World) -> None:
        self._world = world

    # what befalls processes

    def crash(self, number: int) -> None:
        process = self._world.alive(number)
        if process is not None:
            self._world.counts["crash"] += 1
            self._world.say(f"process {process.number} is killed")
            self._world.bury(process)

    def pause(self, number: int) -> None:
        """A process stops for a while: a debugger, SIGSTOP, a machine that swaps."""
        process = self._world.alive(number)
        if process is not None:
            self._world.counts["pause"] += 1
            process.is_paused = True
            self._world.say(f"process {process.number} stops")

    def long_pause(self, number: int) -> None:
        """A process stops for longer than its lease; the others find it dead; then it goes on as if nothing were."""
        world = self._world
        process = world.alive(number)
        if process is None:
            return
        self.pause(number)
        world.pass_time(LONG_S)
        for other in world.running():
            if not other.is_paused:
                world.look_for_dead(other)
        if process in world.processes:
            process.is_paused = False
            world.say(f"process {process.number} goes on")

    def mistake(self, number: int) -> None:
        """One that lives is declared dead, as when a server ends the connection of its lease, by one that dies then."""
        world = self._world
        process, other = world.alive(number), world.alive(number // 7)
        if process is not None and other is not None:
            world.counts["mistake"] += 1
            end = "by mistake" if other is process else f"by {other.number}, which is killed"
            world.say(f"process {process.number} is declared dead {end}")
            self.declare_dead(other, process)
            if other is not process and other in world.processes:
                world.bury(other)

    def declare_dead(self, process: Process, other: Process) -> None:
        """`other` is dead for everybody from now on."""

        def bury(commit: Commit) -> None:
            takeover.declare_dead(commit.connection, other.key, self._world.clock.now_us())

        def declare() -> None:
            with contextlib.suppress(Fenced):
                process.parts.transactions.fenced(bury)

        self._world.act(process, declare)

    def go_on(self, number: int) -> None:
        paused = [process for process in self._world.running() if process.is_paused]
        if paused:
            process = paused[number % len(paused)]
            process.is_paused = False
            self._world.say(f"process {process.number} goes on")

    # what befalls the host

    def clock_step(self, number: int) -> None:
        """The wall clock is set, by hours either way."""
        self._world.counts["clock_step"] += 1
        seconds = (-2 * HOUR_S, -60.0, 60.0, HOUR_S, 26 * HOUR_S)[number % 5]
        self._world.say(f"the wall clock is set by {seconds:g} s")
        self._world.clock.step(seconds)

    def suspend(self, number: int) -> None:
        """The host sleeps: everybody's lease is over when it wakes."""
        self._world.counts["suspend"] += 1
        self._world.say("the host sleeps for an hour")
        self._world.clock.sleep(HOUR_S)

    # what befalls logic

    def logic_error(self, number: int) -> None:
        """The next activation that would be retried fails, after all that its logic does."""
        process = self._world.alive(number)
        if process is not None:
            process.fails_next = True

    def logic_death(self, number: int) -> None:
        """The next activation that would not be retried fails, after all that its logic does."""
        process = self._world.alive(number)
        if process is not None:
            process.dies_next = True

    def overrun(self, number: int) -> None:
        """Time goes on while logic runs, up to the time limit of its job or beyond it, and its engine looks."""
        world = self._world
        limit_s, process = world.model.limits.limit_s, world.alive(number)
        if limit_s is None or process is None or not process.parts.scheduler.runs:
            return
        if process.is_busy and number // 5 % 4:
            world.act(process, lambda: world.say(f"process {process.number} runs {process.perform(number)}"))
        world.counts["overrun"] += 1
        is_over, most = number // 3 % 3 > 0, (0, 0, 1, 5)[number // 11 % 4]  # inputs; 0: it goes on running
        rounds = math.ceil((limit_s + 1.0 if is_over else limit_s / 2) / STEP_S)
        world.say(f"process {process.number} takes {rounds} turns of up to {most} inputs")
        for _ in range(rounds):
            world.pass_time(STEP_S)
            if process in world.processes:
                world.act(process, lambda: process.turn(most))
        if is_over and most == 0 and process in world.processes:
            world.model.limits.check_over(process.jobs_in_logic())

    # what befalls transactions

    def overlap(self, number: int) -> None:
        """Threads of the process that commits next go on with what they were given, before one of its statements."""
        self._world.overlaps = 1 + number % 12, number // 12

    def crash_at(self, number: int) -> None:
        """Whoever comes to it dies before one of the next statements, COMMIT among them."""
        self._arm(number, "crash", Crash())

    def busy(self, number: int) -> None:
        self._arm(number, "busy", database_error(sqlite3.SQLITE_BUSY, "database is locked"))

    def disk_full(self, number: int) -> None:
        self._arm(number, "disk_full", database_error(sqlite3.SQLITE_FULL, "database or disk is full"))

    def io_error(self, number: int) -> None:
        self._arm(number, "io_error", database_error(sqlite3.SQLITE_IOERR, "disk I/O error"))

    def _arm(self, number: int, kind: str, error: BaseException) -> None:
        self._world.counts[kind] += 1
        arena = self._world.arena
        arena.fails_in, arena.failure = 1 + number % 14, error
        self._world.say(f"{kind} is to come at statement {arena.fails_in}")

    def lost_read(self, number: int) -> None:
        """A read loses its connection, at a statement or as it ends: what it has found may be in memory by then."""
        world, arena = self._world, self._world.arena
        world.counts["lost_read"] += 1
        if number % 2:
            arena.read_fails_in = 1 + number // 2 % 21
            world.say(f"a read is to fail at statement {arena.read_fails_in}")
        else:
            arena.read_end_fails_in = 1 + number // 2 % 6
            world.say(f"the end of read {arena.read_end_fails_in} is to fail")

    def lost_answer(self, number: int) -> None:
        self._world.counts["lost_answer"] += 1
        self._world.arena.lost_answer = ("not in", "in", "late", "late, and its process is gone")[number % 4]
        self._world.say(f"the answer of the next commit is to be lost; it is {self._world.arena.lost_answer}")

    def unread(self, number: int) -> None:
        """The next commit that could go whole is read after further transactions, or never; its connection is lost."""
        world = self._world
        world.counts["unread"] += 1
        left, is_gone = (0, 1, 1, 2, 4, 10)[number % 6], number // 6 % 4 == 0
        world.arena.unread = left, is_gone
        end = ", and its process is gone" if is_gone else ""
        world.say(f"the next whole commit is to be read after {left} others{end}")

    def refuse(self, number: int) -> None:
        """A trigger of somebody's refuses statements of group commits for a while; the first may have been sent before."""
        world, tables = self._world, ("routilux_messages", "routilux_activations", "routilux_jobs")
        world.counts["refused"] += 1
        table, most = tables[number % 3], 1 + number // 3 % 3
        world.arena.refuses = table, most
        world.say(f"{most} statements that write {table} are to be refused")
        if number // 9 % 2:
            self.unread(number // 18)
