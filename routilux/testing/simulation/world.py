"""A world: processes on one database, moved by a plan of steps. The same plan makes the same world.

Here processes work and time passes. `starts` starts them, `clients` posts and operates, `accidents` disturbs.
"""

from __future__ import annotations

from collections.abc import Sequence

from routilux.testing.simulation.actors import Clients
from routilux.testing.simulation.checks import final
from routilux.testing.simulation.database import Arena
from routilux.testing.simulation.faults import Accidents
from routilux.testing.simulation.observer import Observer
from routilux.testing.simulation.process import LEASE_S, LONG_S, Process
from routilux.testing.simulation.process_starts import Starts
from routilux.testing.simulation.scenario import Scene, Shape, Step
from routilux.testing.simulation.stage import Stage
from routilux.testing.simulation.tables import Violation

MOST_ROUNDS = 300
COUNTED_S = 2.0  # after so long without work the counters are right


class World(Stage):
    """Steps are methods, of `Starts`, `Clients` and `Accidents` too. Their number decides the details."""

    def __init__(self, scene: Scene, shape: Shape, arena: Arena, observer: Observer | None = None) -> None:
        super().__init__(scene, shape, arena, observer)
        self.callers = self.clients = Clients(self)
        self.accidents = Accidents(self)
        self.starts = Starts(self, self.accidents)
        arena.reset(self._who, self._committed, self._meanwhile, self.observer.statement)
        self.starts.start(0)

    def play(self, plan: Sequence[Step]) -> None:
        """Raises `Violation`."""
        for kind, number in plan:
            actor = next(
                part for part in (self, self.starts, self.clients, self.accidents) if hasattr(part, kind)
            )
            self.observer.event("step", kind, number)
            getattr(actor, kind)(number)
        self.observer.event("no more steps")
        self._finish()

    # processes come and go

    def deploy(self, number: int) -> None:
        """The next release comes: one process is replaced; others have it when they start."""
        if self.starts.release + 1 < len(self.scene.releases):
            self.counts["deploy"] += 1
            self.starts.release += 1
            self.say(f"release {self.starts.release} is out")
            self.accidents.crash(number)
            self.starts.start(number)

    # work

    def step(self, number: int) -> None:
        """An engine takes a turn with some of its inputs."""
        process = self.alive(number)
        if process is not None:
            most = (1, 2, 5, 100)[number // 7 % 4]
            self.say(
                f"the engine of process {process.number} takes up to {most} of {process.input_count} inputs"
            )
            self.act(process, lambda: process.turn(most))

    def take_over(self, number: int) -> None:
        """The reconciler of a process runs."""
        process = self.alive(number)
        if process is not None:
            self.look_for_dead(process)

    def perform(self, number: int) -> None:
        """A thread runs one activation; its run may be asked to stop after it."""
        process = self.alive(number)
        if process is not None and process.is_busy:
            for run, _ in process.active:
                run.should_stop = run.should_stop or number // 11 % 8 == 0
            self.act(
                process, lambda: self.say(f"process {process.number} runs {process.perform(number // 3)}")
            )

    # time

    def clock_tick(self, number: int) -> None:
        """Time passes. Processes that run send their heartbeats."""
        self.pass_time((0.1, 1.0, 3.0, 6.0, LONG_S)[number % 5])

    # the end

    def _finish(self) -> None:
        """No more accidents: clients that are not sure post again, and all work must end."""
        self.say("no more accidents")
        self.overlaps = None
        self.arena.calm()
        self.arena.land()
        for process in self.running():
            process.is_paused = process.fails_next = process.dies_next = False
        self.starts.start(0)
        for _ in range(3):  # longer than a lease: dead processes are found
            for process in self.running():
                self._run_out(process)
            self.pass_time(LEASE_S)
        late = [
            wake - self.clock.wall_us
            for process in self.running()
            for wake, *_ in process.parts.scheduler.timers
        ]
        if late:  # suspects wait a while, and longer if the clock was set back
            self.pass_time(max(late) / 1e6)
            for process in self.running():
                self._run_out(process)
        final.waiting(self.model)
        for _ in range(MOST_ROUNDS):
            self.clients.insist()
            for process in self.running():
                self._run_out(process)
            if not self._has_more():
                break
        self.pass_time(COUNTED_S)
        for process in self.running():
            self.act(process, process.turn)
        final.counters(self.model)
        final.jobs(self.model, self.clients.refused())

    def _run_out(self, process: Process) -> None:
        """Run a process until only time can bring it more to do."""
        process.parts.scheduler.flush_waiters = 1
        process.assembly.reconciler.call()
        self.renew(process)
        self.act(process, process.turn)
        quiet = 0
        for _ in range(MOST_ROUNDS):
            self.act(process, process.turn)  # it sees the workers that the reconciler took
            quiet += 1
            while process.is_busy:
                self.act(process, lambda: process.perform(0))
                quiet = 0
            if quiet >= 2 and not process.can_run():  # the first turn may flush gathered messages
                return
        raise Violation(
            "P11", f"the engine of process {process.number} has something to run, but does not run it"
        )

    def _has_more(self) -> bool:
        """Whether there is more to do. If it waits for a time, time passes."""
        if any(process.can_run() for process in self.running()):
            return True
        if self.clients.are_waiting:
            self.pass_time(1.0)
            return True
        due = [at for process in self.running() for at in process.next_times()]
        if due:
            self.pass_time(min(600.0, max(1.0, (min(due) - self.clock.wall_us) / 1e6)))
        return bool(due)
