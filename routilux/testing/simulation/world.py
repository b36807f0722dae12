"""A world: processes on one database, moved by a plan of steps. The same plan makes the same world.

Here processes work and time passes. `starts` starts them, `clients` posts and operates, `accidents` disturbs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from routilux.core.message import Activation
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.testing.simulation.actors import Clients
from routilux.testing.simulation.checks import final
from routilux.testing.simulation.checks.promises import Model
from routilux.testing.simulation.clock import HostClock
from routilux.testing.simulation.database import Arena, Crash
from routilux.testing.simulation.delayed_commits import Who
from routilux.testing.simulation.faults import Accidents
from routilux.testing.simulation.observer import Observer
from routilux.testing.simulation.process import LEASE_S, LONG_S, Broken, Injected, Process
from routilux.testing.simulation.process_starts import Starts
from routilux.testing.simulation.scenario import Scene, Shape, Step
from routilux.testing.simulation.tables import Tables, Violation

MOST_ROUNDS = 300
COUNTED_S = 2.0  # after so long without work the counters are right


class World:
    """Steps are methods, of `Starts`, `Clients` and `Accidents` too. Their number decides the details."""

    def __init__(self, scene: Scene, shape: Shape, arena: Arena, observer: Observer | None = None) -> None:
        self.scene, self.shape, self.arena = scene, shape, arena
        self.observer = observer or Observer()
        self.clock = HostClock()
        self.trace: list[str] = []
        self.counts = Counter[str]()
        self.processes: list[Process | None] = [None] * shape.processes
        self.overlaps: tuple[int, int] | None = (
            None  # after so many statements, and the number that decides how
        )
        self._acting: Process | None = None
        self._began_us = self.clock.wall_us
        compiled = [registry.resolve(scene.flow).compiled() for registry in scene.releases]
        routine, slot = scene.entry
        self.room = (
            compiled[0].routines[routine].slots[slot].max_queue_length
        )  # of the slot that gets the posts
        self.model = Model(Tables(arena.reader), compiled, self.clock.monotonic, scene.may_fail)
        self.clients = Clients(self)
        self.accidents = Accidents(self)
        self.starts = Starts(self)
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

    # what all steps share

    def say(self, text: str) -> None:
        self.trace.append(text)

    def act(self, process: Process, call: Callable[[], object]) -> None:
        """A process does something with the database, and may die at it."""
        self._acting, self._began_us = process, self.clock.wall_us
        self.observer.event("act", process.number)
        try:
            call()
        except Crash:
            self.observer.event("die", process.number)
            self.say(f"process {process.number} dies at that statement")
            self.clients.take_answers()
            self.remove_dead(process)
        except Broken as error:
            raise Violation("P11", f"the engine of process {process.number}: {error}") from error
        finally:
            self._acting = None
            self.clients.take_answers()

    def alive(self, number: int) -> Process | None:
        """A process that runs; the number says which. Returns None if there is none."""
        running = [process for process in self.running() if not process.is_paused]
        return running[number % len(running)] if running else None

    def workers(self) -> list[str]:
        return [f"w{number}" for number in range(self.shape.workers)]

    def running(self) -> list[Process]:
        """The processes that live, stopped ones included."""
        return [process for process in self.processes if process is not None]

    def _who(self) -> Who:
        return (None if self._acting is None else self._acting.key), self._began_us

    def _committed(self, who: Who) -> None:
        self.model.refusals.count = self.arena.refused_count
        self.model.look(*who, self.clock.wall_us)
        self.observer.committed(self.arena.reader)

    # processes come and go

    def remove_dead(self, process: Process) -> None:
        """A process is dead: its locks and its callers are gone."""
        process.die()
        self.model.limits.process_died(process.key)
        self.clients.forget(process)
        self.processes[process.number] = None

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

    def look_for_dead(self, process: Process) -> None:
        self.say(f"process {process.number} looks for dead processes")
        process.owning.reconciler.call()
        self.act(process, process.turn)

    def perform(self, number: int) -> None:
        """A thread runs one activation; its run may be asked to stop after it."""
        process = self.alive(number)
        if process is not None and process.is_busy:
            for run, _ in process.active:
                run.should_stop = run.should_stop or number // 11 % 8 == 0
            self.act(
                process, lambda: self.say(f"process {process.number} runs {process.perform(number // 3)}")
            )

    def _meanwhile(self) -> None:
        """Before a statement of a group commit: threads of the process may run up to two activations."""
        process = self._acting
        if self.overlaps is None or process is None or not (process.is_turning and process.is_busy):
            return
        left, number = self.overlaps
        self.overlaps = (left - 1, number) if left > 1 else None
        for _ in range(1 + number % 2 if left == 1 else 0):
            if process.is_busy:
                self.counts["overlap"] += 1
                self.say(f"during the commit process {process.number} runs {process.perform(number // 2)}")

    def watch(self, process: Process, run: Run, activation: Activation, outcome: Outcome | None) -> None:
        worker = run.cell.worker.key
        facts = (process.number, worker, run.cell.routine_id, *(m.seq for m in activation.messages))
        if outcome is None:
            self.observer.event("logic", *facts)
            self.model.before_logic(activation, worker)
            return
        self.observer.event("outcome", *facts, outcome.failure.type if outcome.failure else None)
        if outcome.failure is not None:
            is_dead = isinstance(outcome.failure.error, Injected) and not process.is_retried(run.cell)
            self.counts["dead_letter" if is_dead else "logic_error"] += 1
        self.model.after_logic(worker, run.cell.routine_id, activation, outcome)

    # time

    def clock_tick(self, number: int) -> None:
        """Time passes. Processes that run send their heartbeats."""
        self.pass_time((0.1, 1.0, 3.0, 6.0, LONG_S)[number % 5])

    def pass_time(self, seconds: float) -> None:
        self.say(f"{seconds:g} s pass")
        beat = LEASE_S / 3 if seconds <= LONG_S else seconds
        while seconds > 0:
            self.clock.advance(min(seconds, beat))
            seconds -= beat
            for process in self.running():
                if not process.is_paused:
                    self._renew(process)

    def _renew(self, process: Process) -> None:
        self.act(process, process.renew)

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
        process.owning.reconciler.call()
        self._renew(process)
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
