"""What a test of flows needs.

One routine by itself, a runtime whose time and work the test moves, simulated worlds.

    RoutineTester     one routine's logic, called directly: no flow, no database
    runtime(…)        the whole engine in memory, without threads, on a clock that stands still
    simulate(…)       a flow in one world per seed, through crashes, pauses, lost answers, full disks

Nothing here is imported by the rest of the package, and nothing here imports pytest: the fixtures are in
`routilux.testing.pytest_plugin`.
"""

from routilux.testing.captured import CapturedEvent, CapturedEvents
from routilux.testing.clock import START, TestClock
from routilux.testing.manual_runtime import ManualRuntime, runtime
from routilux.testing.routine_tester import RoutineTester
from routilux.testing.simulation import End, Report, SimulationError, simulate

__all__ = [
    "START",
    "CapturedEvent",
    "CapturedEvents",
    "End",
    "ManualRuntime",
    "Report",
    "RoutineTester",
    "SimulationError",
    "TestClock",
    "runtime",
    "simulate",
]
