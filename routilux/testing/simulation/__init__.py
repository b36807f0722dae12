"""A flow in a simulated world: the real engine and store, stepped seed by seed through crashes and other accidents.

    report = simulate(flow, entry=("start", "in"), data=lambda n: {"order": n}, seeds=1000)

Nothing runs by itself: no threads, no real time. A model beside it holds what Routilux promises and what the flow must
keep: that each job ends, and what `check` asserts. A seed that breaks one of them is printed with a short list of the
steps that lead there; the same seed makes the same world again.
"""

from routilux.testing.simulation.observer import Observer
from routilux.testing.simulation.plan import FAULTS
from routilux.testing.simulation.runner import End, Report, SimulationError, simulate

__all__ = ["FAULTS", "End", "Observer", "Report", "SimulationError", "simulate"]
