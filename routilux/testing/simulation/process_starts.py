"""How processes start: at once, or with pauses in which they may be declared dead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from routilux.engine.settings import Settings
from routilux.errors import WorkerEndedError
from routilux.store.errors import PASSING, Fenced, classify
from routilux.testing.simulation.database import Crash
from routilux.testing.simulation.faults import Accidents
from routilux.testing.simulation.process import LONG_S, Broken, Process
from routilux.testing.simulation.stage import Stage
from routilux.testing.simulation.tables import Violation

NO_POISON = 1000  # accidents kill processes, messages do not


class Starts:
    """Steps are methods. The number that each takes decides its details. `release`: the current one."""

    def __init__(self, world: Stage, accidents: Accidents) -> None:
        self._world = world
        self._accidents = accidents
        self.release = 0

    def start(self, number: int) -> None:
        """A process starts in a free place."""
        process = self._new(number)
        if process is not None:
            self._world.act(process, partial(self._try, *self._parts(process)))

    def slow_start(self, number: int) -> None:
        """A process starts, and stops or is declared dead between the parts of its start."""
        process = self._new(number)
        if process is None:
            return
        self._world.counts["slow_start"] += 1
        for part in self._parts(process):
            self._world.act(process, partial(self._try, part))
            if process not in self._world.processes:
                return
            self._interrupt(process, number)
            number //= 4

    def _interrupt(self, process: Process, number: int) -> None:
        world = self._world
        others = [other for other in world.running() if other is not process and not other.is_paused]
        if not others or number % 4 == 0:
            return
        other = others[number // 4 % len(others)]
        if number % 4 == 1:
            world.say(f"process {process.number} is stopped for {LONG_S:g} s while it starts")
            process.is_paused = True
            world.pass_time(LONG_S)
            process.is_paused = False
        else:
            world.say(f"process {process.number} is declared dead by {other.number}")
            self._accidents.declare_dead(other, process)
        if number % 4 != 3 and other in world.processes:
            world.look_for_dead(other)

    def _new(self, number: int) -> Process | None:
        world = self._world
        free = [i for i, process in enumerate(world.processes) if process is None]
        if not free:
            return None
        place = free[number % len(free)]
        settings = Settings(deaths=NO_POISON, death_pause_s=(0.0, 5.0), window=world.shape.window)
        process = world.processes[place] = Process(
            place,
            world.arena.databases[place],
            world.arena.stores[place],
            world.clock,
            world.scene.releases[self.release],
            threads=world.shape.threads,
            settings=settings,
            watch=world.watch,
        )
        world.observer.event("start", place, self.release)
        world.say(f"process {place} starts, release {self.release}")
        return process

    def _parts(self, process: Process) -> list[Callable[[], object]]:
        """The parts of a start: at the end a program starts its workers by name."""
        claims = [partial(self._claim, process, worker_id) for worker_id in self._world.workers()]
        return [process.register, process.publish, *claims]

    def _try(self, *parts: Callable[[], object]) -> None:
        """A process that cannot reach its database dies. Another may start later."""
        try:
            for part in parts:
                part()
        except Fenced as error:
            raise Broken("it was declared dead while it started, and gave up") from error
        except Exception as error:
            if classify(error) not in PASSING:
                raise
            raise Crash from error

    def _claim(self, process: Process, worker_id: str) -> None:
        flow, handover = self._world.scene.flow, process.assembly.handover
        again = process.assembly.engine.again_if_fenced
        with process.store.read() as connection:
            query = "SELECT 1 FROM routilux_workers WHERE worker_id = ?"
            is_known = connection.exec_driver_sql(query, (worker_id,)).first() is not None
        if is_known:
            try:
                again(lambda: handover.resume(worker_id, is_named=True))
            except WorkerEndedError:  # the program is told, and goes on without this worker
                return
            if worker_id in self._world.model.cancels.ids:
                raise Violation("cancel", f"worker {worker_id} was cancelled and was started again")
        else:
            again(lambda: handover.start(flow, worker_id, is_named=True, state={}))
        process.parts.workers.keep(worker_id)
