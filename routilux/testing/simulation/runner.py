"""`simulate`: one world for each seed, what broke in them, and the fewest steps that lead there."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from sqlalchemy import MetaData

from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry
from routilux.testing.simulation.database import Arena
from routilux.testing.simulation.observer import Observer
from routilux.testing.simulation.plan import FAULTS, plan_of, shrunk
from routilux.testing.simulation.scenario import Scene, Shape, Step
from routilux.testing.simulation.tables import Violation
from routilux.testing.simulation.world import World

Seeds = int | Iterable[int]


@dataclass(slots=True)
class Report:
    """What was simulated.

    `accidents`: how often each fault happened. `observed`: seed -> what its observer returned.
    """

    seeds: int = 0
    steps: int = 0
    commits: int = 0
    jobs: int = 0
    seconds: float = 0.0
    accidents: Counter[str] = field(default_factory=Counter)
    observed: dict[int, object] = field(default_factory=dict)

    @property
    def seeds_per_second(self) -> float:
        return self.seeds / self.seconds if self.seconds else 0.0

    def add(self, other: Report) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.commits += other.commits
        self.jobs += other.jobs
        self.accidents += other.accidents
        self.observed |= other.observed

    def __str__(self) -> str:
        accidents = ", ".join(f"{kind} {count}" for kind, count in sorted(self.accidents.items()))
        return (
            f"{self.seeds} seeds, {self.seeds_per_second:.0f}/s; {self.jobs} jobs, {self.steps} steps,"
            f" {self.commits} commits; {accidents}"
        )


class SimulationError(AssertionError):
    """A seed broke a promise of Routilux, or the flow.

    `seed`: to run it again. `steps`: what happened before.
    `promise`: P1 to P11, "pause", "cancel", "time limit" or "flow".
    """

    def __init__(self, flow: str, seed: int, promise: str, text: str, steps: Sequence[str]) -> None:
        told = "\n".join(f"  {number:3} {step}" for number, step in enumerate(steps, 1))
        super().__init__(
            f"flow {flow!r}: {promise}: {text}\nafter\n{told}\nrun it again: simulate(…, seeds=[{seed}])"
        )
        self.arguments = (flow, seed, promise, text, steps)
        self.seed = seed
        self.promise = promise
        self.steps = list(steps)

    def __reduce__(self) -> Any:
        return SimulationError, self.arguments


class End:
    """The end of one world, for `check`. `posts`: job id -> data; `jobs`: job id -> status."""

    def __init__(self, world: World) -> None:
        self.posts: Mapping[str, Mapping[str, Any]] = world.model.posted
        self.jobs: Mapping[str, str] = world.model.jobs
        self._world = world

    def state(self, routine: str) -> list[dict[str, Any]]:
        """The state of a routine in each worker that has one."""
        states = self._world.model.tables.states()
        return [state for (_, name), state in states.items() if name == routine]

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Query the database of this world (SQLite)."""
        return self._world.model.tables.all(sql, *values)


def simulate(
    flow: Flow | Sequence[Flow] | Callable[[], Flow | Sequence[Flow]],
    *,
    entry: tuple[str, str],
    data: Callable[[int], Mapping[str, Any]] = lambda number: {"id": number},
    seeds: Seeds = 100,
    faults: Collection[str] = tuple(FAULTS),
    runtimes: int = 4,
    most_jobs: int = 8,
    signals: tuple[str, str] | None = None,
    may_fail: bool = False,
    tables: MetaData | None = None,
    check: Callable[[End], None] | None = None,
    observe: Callable[[], Observer] | None = None,
    shrink: bool = True,
    processes: int = 1,
) -> Report:
    """Run a flow in one world for each seed. Raises `SimulationError` for the first that breaks something.

    `flow`: a flow; its releases in order (a `deploy` takes the next while work is in flight); or a function
    that builds one of these for each world, for logic that keeps something outside of Routilux.
    `entry`: routine and slot to which jobs are posted. `data`: the data of the n-th job.
    `seeds`: how many, from 0 on, or which. `faults`: which of `FAULTS` may happen.
    `runtimes`: the most runtimes on one database, 1 to 4. `most_jobs`: the most jobs in a world.
    `signals`: routine and slot at which running jobs are signalled, with the data of their post.
    Default: no signals.
    `may_fail`: jobs may fail by errors of the flow's logic. Injected errors of "dead_letter" always may.
    `tables`: the user's tables, for user statements.
    `check`: called at the end of each world. An error that it raises is a finding.
    `observe`: makes an observer for each world.
    `shrink`: look for the fewest steps that break the same promise.
    `processes`: the number of processes (forked) that share the seeds.
    """
    unknown = set(faults) - FAULTS.keys()
    if unknown:
        raise ValueError(f"faults: {sorted(unknown)} are not in {sorted(FAULTS)}")
    if not 1 <= runtimes <= 4:
        raise ValueError(f"runtimes must be 1 to 4, not {runtimes!r}")
    task = _Task(
        flow,
        entry,
        data,
        [name for name in FAULTS if name in faults and (name != "signal" or signals)],
        runtimes,
        most_jobs,
        signals,
        may_fail,
        tables,
        check,
        observe,
        shrink,
    )
    wanted = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    begun = time.monotonic()
    report = Report()
    if processes <= 1:
        report.add(task.run(wanted))
    else:
        global _shared
        _shared = task
        with ProcessPoolExecutor(processes, get_context("fork")) as pool:
            for part in pool.map(_run_shared, [wanted[i::processes] for i in range(processes)]):
                report.add(part)
    report.seconds = time.monotonic() - begun
    return report


_shared: _Task


def _run_shared(seeds: list[int]) -> Report:
    return _shared.run(seeds)


@dataclass(frozen=True, slots=True)
class _Task:
    flow: Any
    entry: tuple[str, str]
    data: Callable[[int], Mapping[str, Any]]
    faults: list[str]
    runtimes: int
    most_jobs: int
    signals: tuple[str, str] | None
    may_fail: bool
    tables: MetaData | None
    check: Callable[[End], None] | None
    observe: Callable[[], Observer] | None
    shrink: bool

    def run(self, seeds: Sequence[int]) -> Report:
        """One world after another, in this process."""
        log = logging.getLogger("routilux")
        was_disabled, log.disabled = log.disabled, True
        arena = Arena(self.tables, self.runtimes)
        is_timed = self._scene().has_limit
        faults = [name for name in self.faults if is_timed or name != "time_limit"]
        report = Report()
        try:
            for seed in seeds:
                shape, plan = plan_of(seed, faults, self.runtimes)
                observer = None if self.observe is None else self.observe()
                world, broken = self._play(shape, plan, arena, observer)
                if broken is not None:
                    raise self._told(seed, shape, plan, broken, world.trace, arena) from broken.__cause__
                report.seeds += 1
                report.steps += len(plan)
                report.commits += arena.commits
                report.jobs += len(world.model.jobs)
                report.accidents += world.counts
                if observer is not None:
                    report.observed[seed] = observer.end(arena.reader)
        finally:
            arena.close()
            log.disabled = was_disabled
        return report

    def _play(
        self, shape: Shape, plan: Sequence[Step], arena: Arena, observer: Observer | None = None
    ) -> tuple[World, Violation | None]:
        world = World(self._scene(), shape, arena, observer)
        try:
            world.play(plan)
            if self.check is not None:
                self._checked(self.check, End(world))
        except Violation as broken:
            return world, broken
        return world, None

    def _checked(self, check: Callable[[End], None], end: End) -> None:
        try:
            check(end)
        except Exception as error:  # the user's assertions
            raise Violation("flow", f"{type(error).__name__}: {error}") from error

    def _told(
        self, seed: int, shape: Shape, plan: list[Step], broken: Violation, trace: list[str], arena: Arena
    ) -> SimulationError:
        """The error to raise: with the fewest steps that break the same promise."""
        last = (broken, trace)

        def breaks(candidate: list[Step]) -> bool:
            nonlocal last
            world, found = self._play(shape, candidate, arena)
            if found is None or found.promise != broken.promise:
                return False
            last = (found, world.trace)
            return True

        if self.shrink:
            shrunk(plan, breaks)
        found, trace = last
        return SimulationError(self._scene().flow, seed, found.promise, found.text, trace)

    def _scene(self) -> Scene:
        built = self.flow() if callable(self.flow) and not isinstance(self.flow, Flow) else self.flow
        releases = [built] if isinstance(built, Flow) else list(built)
        name = str(releases[0].flow_id)
        registries = []
        for release in releases:
            registry = FlowRegistry()
            registry.register_by_name(name, release)
            registries.append(registry)
        return Scene(
            name,
            registries,
            self.entry,
            lambda number: dict(self.data(number)),
            self.may_fail,
            self.most_jobs,
            self.signals,
        )


__all__ = ["End", "Report", "SimulationError", "simulate"]
