"""What all steps of a world share: its processes, its clock, its model, and how a process acts.

`World` adds the steps, `Clients`, `Accidents` and `Starts` have more of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from routilux.core.message import Activation
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.testing.simulation.checks.promises import Model
from routilux.testing.simulation.clock import HostClock
from routilux.testing.simulation.database import Arena, Crash
from routilux.testing.simulation.delayed_commits import Who
from routilux.testing.simulation.observer import Observer
from routilux.testing.simulation.process import LEASE_S, LONG_S, Broken, Injected, Process
from routilux.testing.simulation.scenario import Scene, Shape
from routilux.testing.simulation.tables import Tables, Violation


class Callers(Protocol):
    """The clients and operators of a world, who wait for answers."""

    def take_answers(self) -> None: ...
    def forget(self, process: Process) -> None: ...


class Stage:
    """Owns the processes of a world. `callers` is set before anything acts."""

    callers: Callers

    def __init__(self, scene: Scene, shape: Shape, arena: Arena, observer: Observer | None = None) -> None:
        self.scene, self.shape, self.arena = scene, shape, arena
        self.observer = observer or Observer()
        self.clock = HostClock()
        self.trace: list[str] = []
        self.counts = Counter[str]()
        self.processes: list[Process | None] = [None] * shape.processes
        # after so many statements, and the number that decides how
        self.overlaps: tuple[int, int] | None = None
        self._acting: Process | None = None
        self._began_us = self.clock.wall_us
        compiled = [registry.resolve(scene.flow).compiled() for registry in scene.releases]
        routine, slot = scene.entry
        # of the slot that gets the posts
        self.room = compiled[0].routines[routine].slots[slot].max_queue_length
        self.model = Model(Tables(arena.reader), compiled, self.clock.monotonic, scene.may_fail)

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
            self.callers.take_answers()
            self.remove_dead(process)
        except Broken as error:
            raise Violation("P11", f"the engine of process {process.number}: {error}") from error
        finally:
            self._acting = None
            self.callers.take_answers()

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

    def remove_dead(self, process: Process) -> None:
        """A process is dead: its locks and its callers are gone."""
        process.die()
        self.model.limits.process_died(process.key)
        self.callers.forget(process)
        self.processes[process.number] = None

    def look_for_dead(self, process: Process) -> None:
        self.say(f"process {process.number} looks for dead processes")
        process.assembly.reconciler.call()
        self.act(process, process.turn)

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

    def pass_time(self, seconds: float) -> None:
        self.say(f"{seconds:g} s pass")
        beat = LEASE_S / 3 if seconds <= LONG_S else seconds
        while seconds > 0:
            self.clock.advance(min(seconds, beat))
            seconds -= beat
            for process in self.running():
                if not process.is_paused:
                    self.renew(process)

    def renew(self, process: Process) -> None:
        self.act(process, process.renew)
