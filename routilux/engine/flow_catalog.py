"""The flow definitions that a runtime can run: a registry, seen by registered name."""

from __future__ import annotations

import orjson

from routilux.core.compiled import CompiledFlow
from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry
from routilux.engine.facts import Facts
from routilux.errors import FlowNotFoundError, PolicyError


class FlowCatalog:
    """What the engine asks of a registry. It checks a flow once, when it is first used."""

    def __init__(self, registry: FlowRegistry, facts: Facts) -> None:
        self._registry = registry
        self._facts = facts
        self._checked: set[str] = set()
        self._described: dict[str, tuple[CompiledFlow, tuple[str, str]]] = {}

    def prepare(self, name: str) -> str:
        """The name under which jobs of a flow run.

        Raises `FlowNotFoundError`, `PolicyError` for a flow that cannot run.
        """
        if not isinstance(name, str):
            raise FlowNotFoundError(str(name))
        flow = self._flow(name)
        if name not in self._checked:
            self._check(name, flow)
            self._checked.add(name)
        return name

    def _check(self, name: str, flow: Flow) -> None:
        """Warn of routines that can never run; raise `PolicyError` for what can never work."""
        compiled = flow.compiled()  # logic that fits no form says so itself
        for finding in flow.validate():
            if finding.startswith("Error:"):
                raise PolicyError(f"flow {name!r}: {finding.removeprefix('Error: ')}")
        for routine_id, routine in compiled.routines.items():
            if routine.policy is None or routine.call is None:
                missing = "activation policy" if routine.policy is None else "logic"
                self._facts.report("flow.never_runs", flow=name, routine_id=routine_id, missing=missing)

    def _flow(self, name: str) -> Flow:
        return self._registry.resolve(name)

    def has(self, name: str) -> bool:
        try:
            self._flow(name)
        except FlowNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        return self._registry.names()

    def get(self, name: str) -> CompiledFlow:
        return self._flow(name).compiled()

    def definition(self, name: str) -> tuple[str, str]:
        """(hash, JSON text) of the definition as it is now."""
        compiled = self.get(name)
        known = self._described.get(name)
        if known is None or known[0] is not compiled:
            flow = self._flow(name)
            described = flow.definition_hash(), orjson.dumps(flow.serialize()).decode()
            known = self._described[name] = (compiled, described)
        return known[1]

    def entry(self, name: str) -> tuple[str, str]:
        """The first routine with a slot `trigger`, for `entry_params`."""
        for routine_id, routine in self.get(name).routines.items():
            if "trigger" in routine.slots:
                return routine_id, "trigger"
        raise ValueError(
            f"flow {name!r} has no routine with a slot 'trigger': entry_params have nowhere to go"
        )
