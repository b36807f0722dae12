"""Periodic work between two commits, as the engine sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Glance:
    """What one look at the whole database found."""

    is_thorough: bool  # look at everything, whatever was found
    has_inbox: bool
    has_others: bool  # other runtimes live
    has_ownerless: bool  # workers have no owner
    is_dead: bool  # this runtime is declared dead


class Duty(Protocol):
    """Periodic work between two commits; `ownership.reconciler` does it."""

    def glance_if_due(self) -> Glance | None:
        """Look at the whole database, if it is time. Returns None if it is not."""

    is_walking: bool  # a long walk is under way

    def run(self, glance: Glance, is_busy: Callable[[], bool]) -> None:
        """Do what the glance shows: take-over, maintenance."""

    def go_on(self, is_busy: Callable[[], bool]) -> None:
        """The next part of the walk."""

    def next_in_s(self) -> float:
        """Seconds until the walk goes on."""
