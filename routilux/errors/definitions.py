"""A flow, or a part of one, that cannot work as defined."""

from __future__ import annotations

from collections.abc import Sequence

from routilux.errors.root import RoutiluxError


class DefinitionError(RoutiluxError, ValueError):
    """A flow, or a part of one, is not valid: a name is taken or unknown, or a limit is bad."""


class PolicyError(RoutiluxError, ValueError):
    """An activation policy can never work, or it returned a value that policies may not return."""


class LogicSignatureError(RoutiluxError, TypeError):
    """The parameters of a routine's logic match neither of the two forms, or both."""

    def __init__(self, name: str, signature: str, slot_names: Sequence[str], reason: str) -> None:
        self.name = name
        self.slot_names = tuple(slot_names)
        lists = ", ".join([*slot_names, "policy_message", "worker_state"])
        super().__init__(
            f"logic {name}{signature}: {reason}. Write it as\n"
            f"    def {name}(slot_data, policy_message, worker_state)"
            "    # slot_data is {slot name: [item, …]}\n"
            "or with one list per slot, in the order they were added,\n"
            f"    def {name}({lists})"
        )


class ConfigReadOnlyError(RoutiluxError, RuntimeError):
    """Logic tried to change the configuration of a routine."""

    def __init__(self) -> None:
        super().__init__(
            "Cannot modify _config during execution. Use WorkerState for execution-specific state."
        )
