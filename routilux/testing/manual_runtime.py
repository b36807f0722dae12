"""`runtime(…)`: the whole engine in memory, without threads, on a clock that the test moves."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType

from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry
from routilux.engine.settings import Settings
from routilux.errors import DefinitionError
from routilux.runtime.drive import Drive
from routilux.runtime.runtime import Runtime
from routilux.testing.clock import START, TestClock
from routilux.testing.inline import InlineDrive

MOST_ACTIVATIONS = 100_000


class ManualRuntime(Runtime):
    """A `Runtime` in which nothing happens by itself; made by `runtime(…)`.

    `clock`: its time. `registry`: where it looks flows up. `post` stores and returns; logic runs, in the
    calling thread, when `run_until_idle` or one of the calls that wait is made. A wait takes no time on the
    wall: when nothing can run, the clock moves to what is due next, at most as far as the wait's timeout; a
    wait without a timeout for what can never happen raises `StateError`.
    """

    def __init__(
        self,
        *,
        registry: FlowRegistry,
        database: str,
        start: datetime,
        capture_output: bool,
        settings: Settings | None,
    ) -> None:
        self.registry = registry
        self.clock = TestClock(start)
        self._inline = InlineDrive(self.clock)
        super().__init__(
            database=database,
            durability="process_crash",
            registry=registry,
            capture_output=capture_output,
            settings=settings,
        )

    def _make_drive(self) -> Drive:
        return self._inline

    def __enter__(self) -> ManualRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What has not run by the end of the block does not run."""
        self.shutdown(wait=False)

    def run_until_idle(self, *, skip_time: bool = False, most: int = MOST_ACTIVATIONS) -> int:
        """Run everything that can run now; returns how many activations that were.

        `skip_time`: then move the clock to what is due next (a delay, a retry, the end of a `max_wait`),
        again and again, until nothing is left that time alone would bring. `most`: raise `StateError` after
        so many activations, for a flow that feeds itself without end.
        """
        self._host.check_usable("run_until_idle")
        before = self._inline.activations
        self._inline.run(most=most)
        while skip_time and (due := self._inline.next_due()) is not None:
            self.clock.move_to(due)
            self._inline.run(most=most - (self._inline.activations - before))
        return self._inline.activations - before


def runtime(
    *flows: Flow,
    registry: FlowRegistry | None = None,
    database: str = "sqlite://",
    start: datetime = START,
    capture_output: bool = False,
    settings: Settings | None = None,
) -> ManualRuntime:
    """A runtime for a test, on a database in memory; use it as a context manager.

    `flows`: registered under their flow ids. `registry`: where flows are looked up; default a new one if
    flows are given, else that of the process. `database`: another SQLite file or Postgres, for tests of a
    restart; no other runtime may be on it at the same time. `start`: the time at which the clock stands,
    default 2024-01-01 UTC. Raises `DefinitionError` for a flow without an id, and what `Runtime` raises.
    """
    for flow in flows:
        if flow.flow_id is None:
            raise DefinitionError("a flow that is given to testing.runtime() needs a flow_id: Flow('name')")
    if registry is None:
        registry = FlowRegistry() if flows else FlowRegistry.get_instance()
    for flow in flows:
        registry.register_by_name(str(flow.flow_id), flow)
    return ManualRuntime(
        registry=registry, database=database, start=start, capture_output=capture_output, settings=settings
    )


__all__ = ["ManualRuntime", "runtime"]
