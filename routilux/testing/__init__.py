"""For tests of flows: `simulate` runs a flow through a simulated world."""

from routilux.testing.simulation import End, Report, SimulationError, simulate

__all__ = ["End", "Report", "SimulationError", "simulate"]
