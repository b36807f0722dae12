"""What a test of flows needs: one routine by itself, and a runtime whose time and work the test moves.

    RoutineTester     one routine's logic, called directly: no flow, no database
    runtime(…)        the whole engine in memory, without threads, on a clock that stands still

Nothing here is imported by the rest of the package, and nothing here imports pytest: the fixtures are in
`routilux.testing.pytest_plugin`.
"""

from routilux.testing.clock import START, TestClock
from routilux.testing.manual_runtime import ManualRuntime, runtime
from routilux.testing.routine_tester import CapturedEvent, CapturedEvents, RoutineTester

__all__ = [
    "START",
    "CapturedEvent",
    "CapturedEvents",
    "ManualRuntime",
    "RoutineTester",
    "TestClock",
    "runtime",
]
