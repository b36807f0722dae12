"""A world: processes on one database, moved by a plan of steps. The same plan makes the same world.

Here processes work, and see time pass; `starts` brings them there, `clients` want something of them, `accidents` befall them.
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
COUNTED_S = 2.0  # after so long without work counters are right


class World:
    """Steps are methods, of `Starts`, `Clients` and `Accidents` too; each takes the number that decides what is left open."""

    def __init__(self, scene: Scene, shape: Shape, arena: Arena, observer: Observer | None = None) -> None:
        self.scene, self.shape, self.arena = scene, shape, arena
        self.observer = observer or Observer()
        self.clock = HostClock()
        self.trace: list[str] = []
        self.counts = Counter[str]()
        self.processes: list[Process | None] = [None] * shape.processes
        self.overlaps: tuple[int, int] | None = None  # so many statements on, and the number that decides how
        self._acting: Process | None = None
        self._began_us = self.clock.wall_us
        compiled = [registry.resolve(scene.flow).compiled() for registry in scene.releases]
        routine, slot = scene.entry
        self.room = (
            compiled[0].routines[routine].slots[slot].max_queue_length
        )  # of the slot that is posted to
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
        """A process does something to the database, and may die of it."""
        self._acting, self._began_us = process, self.clock.wall_us
        self.observer.event("act", process.number)
        try:
            call()
        except Crash:
            self.observer.event("die", process.number)
            self.say(f"process {process.number} dies at that statement")
            self.clients.take_answers()
            self.bury(process)
        except Broken as error:
            raise Violation("P11", f"the engine of process {process.number}: {error}") from error
        finally:
            self._acting = None
            self.clients.take_answers()

    def alive(self, number: int) -> Process | None:
        """One that runs; which, the number says."""
        running = [process for process in self.running() if not process.is_paused]
        return running[number % len(running)] if running else None

    def workers(self) -> list[str]:
        return [f"w{number}" for number in range(self.shape.workers)]

    def running(self) -> list[Process]:
        """Those that are there, stopped ones among them."""
        return [process for process in self.processes if process is not None]

    def _who(self) -> Who:
        return (None if self._acting is None else self._acting.key), self._began_us

    def _committed(self, who: Who) -> None:
        self.model.refusals.count = self.arena.refused_count
        self.model.look(*who, self.clock.wall_us)
        self.observer.committed(self.arena.reader)

    # processes come and go

    def bury(self, process: Process) -> None:
        """It is dead, and nobody waits for it."""
        process.die()
        self.model.limits.bury(process.key)
        self.clients.forget(process)
        self.processes[process.number] = None

    def deploy(self, number: int) -> None:
        """The next release: a process is replaced by one that has it, others follow as they start."""
        if self.starts.release + 1 < len(self.scene.releases):
            self.counts["deploy"] += 1
            self.starts.release += 1
            self.say(f"release {self.starts.release} is out")
            self.accidents.crash(number)
            self.starts.start(number)

    # work

    def step(self, number: int) -> None:
        """An engine takes a turn with some of what has come in."""
        process = self.alive(number)
        if process is not None:
            most = (1, 2, 5, 100)[number // 7 % 4]
            self.say(f"engine {process.number} takes up to {most} of {process.input_count} inputs")
            self.act(process, lambda: process.turn(most))

    def take_over(self, number: int) -> None:
        """The reconciler's turn comes."""
        process = self.alive(number)
        if process is not None:
            self.look_for_dead(process)

    def look_for_dead(self, process: Process) -> None:
        self.say(f"process {process.number} looks for dead ones")
        process.owning.reconciler.call()
        self.act(process, process.turn)

    def perform(self, number: int) -> None:
        """A thread runs one activation, and may be asked to stop after it."""
        process = self.alive(number)
        if process is not None and process.is_busy:
            for run, _ in process.active:
                run.should_stop = run.should_stop or number // 11 % 8 == 0
            self.act(
                process, lambda: self.say(f"process {process.number} runs {process.perform(number // 3)}")
            )

    def _meanwhile(self) -> None:
        """A statement of a group commit: the threads of its process may run up to two activations that they were given before."""
        process = self._acting
        if self.overlaps is None or process is None or not (process.is_turning and process.is_busy):
            return
        left, number = self.overlaps
        self.overlaps = (left - 1, number) if left > 1 else None
        for _ in range(1 + number % 2 if left == 1 else 0):
            if process.is_busy:
                self.counts["overlap"] += 1
                self.say(f"in the middle of it process {process.number} runs {process.perform(number // 2)}")

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
        """Time passes; heartbeats of those who run go on."""
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
        """No more accidents: whoever is not sure posts again, and all of it must come to its end."""
        self.say("no more accidents")
        self.overlaps = None
        self.arena.calm()
        self.arena.land()
        for process in self.running():
            process.is_paused = process.fails_next = process.dies_next = False
        self.starts.start(0)
        for _ in range(3):  # a lease and more: whoever is dead is found out
            for process in self.running():
                self._run_out(process)
            self.pass_time(LEASE_S)
        late = [
            wake - self.clock.wall_us
            for process in self.running()
            for wake, *_ in process.parts.scheduler.timers
        ]
        if late:  # what was in flight when a process died waits a while, longer if the clock was set back
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
        """Until nothing more of it can run without the time going on."""
        process.parts.scheduler.flush_waiters = 1
        process.owning.reconciler.call()
        self._renew(process)
        self.act(process, process.turn)
        quiet = 0
        for _ in range(MOST_ROUNDS):
            self.act(process, process.turn)  # sees what the reconciler has taken
            quiet += 1
            while process.is_busy:
                self.act(process, lambda: process.perform(0))
                quiet = 0
            if quiet >= 2 and not process.can_run():  # the first turn may flush what is gathered
                return
        raise Violation("P11", f"the engine of process {process.number} has something to run, and does not")

    def _has_more(self) -> bool:
        """Work that can still be done; if it waits for a time, that time comes."""
        if any(process.can_run() for process in self.running()):
            return True
        if self.clients.are_waiting:
            self.pass_time(1.0)
            return True
        due = [at for process in self.running() for at in process.next_times()]
        if due:
            self.pass_time(min(600.0, max(1.0, (min(due) - self.clock.wall_us) / 1e6)))
        return bool(due)
