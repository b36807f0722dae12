"""A flow in a simulated world: the real engine and store, with crashes and other accidents, seed by seed.

    report = simulate(flow, entry=("start", "in"), data=lambda n: {"order": n}, seeds=1000)

Nothing runs by itself: there are no threads and no real time. A model checks what Routilux promises, that
each job ends, and what `check` asserts. A seed that breaks one of these is printed with a short list of the
steps that lead there. The same seed makes the same world.
"""

from routilux.testing.simulation.observer import Observer
from routilux.testing.simulation.plan import FAULTS
from routilux.testing.simulation.runner import End, Report, SimulationError, simulate

__all__ = ["FAULTS", "End", "Observer", "Report", "SimulationError", "simulate"]
