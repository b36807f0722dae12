"""The accidents of a world: of its processes, its host, logic, and the transactions on its file."""

from __future__ import annotations

import contextlib
import math
import sqlite3

from routilux.ownership import takeover
from routilux.store.errors import Fenced
from routilux.store.writes.store import Commit
from routilux.testing.simulation.database import Crash, database_error
from routilux.testing.simulation.process import LONG_S, Process
from routilux.testing.simulation.stage import Stage

HOUR_S = 3600.0
STEP_S = 0.5  # below `job_timeouts.MOST_S`: a longer time without a look does not count in full


class Accidents:
    """Steps are methods. The number that each takes decides its details."""

    def __init__(self, world: Stage) -> None:
        self._world = world

    # accidents of processes

    def crash(self, number: int) -> None:
        process = self._world.alive(number)
        if process is not None:
            self._world.counts["crash"] += 1
            self._world.say(f"process {process.number} is killed")
            self._world.remove_dead(process)

    def pause(self, number: int) -> None:
        """A process stops for a while: a debugger, SIGSTOP, a machine that swaps."""
        process = self._world.alive(number)
        if process is not None:
            self._world.counts["pause"] += 1
            process.is_paused = True
            self._world.say(f"process {process.number} is stopped")

    def long_pause(self, number: int) -> None:
        """A process stops for longer than its lease, and the others declare it dead. Then it goes on."""
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
        """A living process is declared dead, as when its lease connection ends. The other process dies."""
        world = self._world
        process, other = world.alive(number), world.alive(number // 7)
        if process is not None and other is not None:
            world.counts["mistake"] += 1
            end = "by mistake" if other is process else f"by {other.number}, which is killed"
            world.say(f"process {process.number} is declared dead {end}")
            self.declare_dead(other, process)
            if other is not process and other in world.processes:
                world.remove_dead(other)

    def declare_dead(self, process: Process, other: Process) -> None:
        """Declare `other` dead in the database."""

        def mark_dead(commit: Commit) -> None:
            takeover.declare_dead(commit.connection, other.key, self._world.clock.now_us())

        def declare() -> None:
            with contextlib.suppress(Fenced):
                process.parts.transactions.fenced(mark_dead)

        self._world.act(process, declare)

    def go_on(self, number: int) -> None:
        paused = [process for process in self._world.running() if process.is_paused]
        if paused:
            process = paused[number % len(paused)]
            process.is_paused = False
            self._world.say(f"process {process.number} goes on")

    # accidents of the host

    def clock_step(self, number: int) -> None:
        """The wall clock is set forward or back, by up to a day."""
        self._world.counts["clock_step"] += 1
        seconds = (-2 * HOUR_S, -60.0, 60.0, HOUR_S, 26 * HOUR_S)[number % 5]
        self._world.say(f"the wall clock is set by {seconds:g} s")
        self._world.clock.step(seconds)

    def suspend(self, number: int) -> None:
        """The host sleeps. When it wakes, all leases have expired."""
        self._world.counts["suspend"] += 1
        self._world.say("the host sleeps for an hour")
        self._world.clock.sleep(HOUR_S)

    # accidents of logic

    def logic_error(self, number: int) -> None:
        """The next activation that is retried on errors fails after all its work."""
        process = self._world.alive(number)
        if process is not None:
            process.fails_next = True

    def logic_death(self, number: int) -> None:
        """The next activation that is not retried on errors fails after all its work."""
        process = self._world.alive(number)
        if process is not None:
            process.dies_next = True

    def overrun(self, number: int) -> None:
        """Time passes while logic runs, perhaps past the time limit of its job. The engine takes turns."""
        world = self._world
        limit_s, process = world.model.limits.limit_s, world.alive(number)
        if limit_s is None or process is None or not process.parts.scheduler.runs:
            return
        if process.is_busy and number // 5 % 4:
            world.act(process, lambda: world.say(f"process {process.number} runs {process.perform(number)}"))
        world.counts["overrun"] += 1
        is_over, most = number // 3 % 3 > 0, (0, 0, 1, 5)[number // 11 % 4]  # inputs a turn; 0: logic goes on
        rounds = math.ceil((limit_s + 1.0 if is_over else limit_s / 2) / STEP_S)
        world.say(f"process {process.number} takes {rounds} turns of up to {most} inputs")
        for _ in range(rounds):
            world.pass_time(STEP_S)
            if process in world.processes:
                world.act(process, lambda: process.turn(most))
        if is_over and most == 0 and process in world.processes:
            world.model.limits.check_over(process.jobs_in_logic())

    # accidents of transactions

    def overlap(self, number: int) -> None:
        """Threads of the process that commits next run activations in the middle of its commit."""
        self._world.overlaps = 1 + number % 12, number // 12

    def crash_at(self, number: int) -> None:
        """A process dies before one of the next statements, COMMIT included."""
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
        self._world.say(f"{kind} will happen at statement {arena.fails_in} from now")

    def lost_read(self, number: int) -> None:
        """A read loses its connection, at a statement or at its end, when memory may have changed already."""
        world, arena = self._world, self._world.arena
        world.counts["lost_read"] += 1
        if number % 2:
            arena.read_fails_in = 1 + number // 2 % 21
            world.say(f"a read will fail, at statement {arena.read_fails_in} from now")
        else:
            arena.read_end_fails_in = 1 + number // 2 % 6
            world.say(f"read number {arena.read_end_fails_in} from now will fail at its end")

    def lost_answer(self, number: int) -> None:
        self._world.counts["lost_answer"] += 1
        self._world.arena.lost_answer = ("not in", "in", "late", "late, and its process is gone")[number % 4]
        self._world.say(f"the answer of the next commit will be lost; it is {self._world.arena.lost_answer}")

    def unread(self, number: int) -> None:
        """The next whole commit loses its connection. The database reads it later, or never."""
        world = self._world
        world.counts["unread"] += 1
        left, is_gone = (0, 1, 1, 2, 4, 10)[number % 6], number // 6 % 4 == 0
        world.arena.unread = left, is_gone
        end = ", and its process is gone" if is_gone else ""
        world.say(f"the next whole commit will be read after {left} other transactions{end}")

    def refuse(self, number: int) -> None:
        """A trigger refuses some statements of group commits. The first commit may have been sent before."""
        world, tables = self._world, ("routilux_messages", "routilux_activations", "routilux_jobs")
        world.counts["refused"] += 1
        table, most = tables[number % 3], 1 + number // 3 % 3
        world.arena.refuses = table, most
        world.say(f"the next {most} statements that write {table} will be refused")
        if number // 9 % 2:
            self.unread(number // 18)
