"""What is simulated, and what a seed has chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routilux.core.registry import FlowRegistry

Step = tuple[str, int]  # what happens, and the number that decides its details


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated. `releases`: registries with the flow, oldest first. A deploy takes the next."""

    flow: str
    releases: Sequence[FlowRegistry]
    entry: tuple[str, str]
    data: Callable[[int], dict[str, Any]]
    may_fail: bool
    most_jobs: int
    signals: tuple[str, str] | None

    @property
    def has_limit(self) -> bool:
        flows = [registry.resolve(self.flow) for registry in self.releases]
        return any(flow.execution_timeout is not None for flow in flows)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a seed has chosen of a world before its first step."""

    processes: int
    workers: int
    threads: int
    window: int
