"""A flow before it runs: is it fit, and how is it described in the database."""

from __future__ import annotations

import logging

import orjson

from routilux.core.flow import Flow
from routilux.errors import PolicyError

log = logging.getLogger("routilux")


def checked(name: str, flow: Flow) -> None:
    """Warn of routines that can never run; raise `PolicyError` for what can never work."""
    flow.compiled()  # logic that fits no form says so itself
    for finding in flow.validate():
        if finding.startswith("Error:"):
            raise PolicyError(f"flow {name!r}: {finding.removeprefix('Error: ')}")
    for routine_id, routine in flow.compiled().routines.items():
        if routine.policy is None or routine.call is None:
            missing = "activation policy" if routine.policy is None else "logic"
            log.warning("flow %r: routine %r has no %s and will never run", name, routine_id, missing)


def describe(flow: Flow) -> tuple[str, str]:
    """(hash, JSON text) of a definition."""
    return flow.definition_hash(), orjson.dumps(flow.serialize()).decode()
