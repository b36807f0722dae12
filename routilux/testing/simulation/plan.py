"""Turns a seed into the shape and the steps of a world; finds fewer steps that break the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from routilux.testing.simulation.scenario import Shape, Step

# What always happens, with weights; then the faults that a seed may choose, with their steps.
WORK = {
    "post": 3.0,
    "perform": 9.0,
    "step": 9.0,
    "clock_tick": 1.0,
    "take_over": 0.7,
    "post_again": 0.4,
    "start": 0.7,
}
FAULTS: dict[str, dict[str, float]] = {
    "crash": {"crash": 0.4, "crash_at": 0.8},
    "lost_answer": {"lost_answer": 0.6},
    "pause": {"pause": 0.4, "go_on": 0.8, "clock_tick": 1.0, "long_pause": 0.6},
    "mistake": {"mistake": 0.5},
    "busy": {"busy": 0.4},
    "disk_full": {"disk_full": 0.4},
    "io_error": {"io_error": 0.3},
    "lost_read": {"lost_read": 1.0},
    "logic_error": {"logic_error": 1.5},
    "dead_letter": {"logic_death": 1.0, "dead_letter": 1.5},
    "signal": {"signal": 1.5},
    "clock_step": {"clock_step": 0.4},
    "suspend": {"suspend": 0.2},
    "operate": {"operate": 2.5},
    "pause_worker": {"pause_worker": 0.5, "resume_worker": 1.0},
    "cancel_worker": {"cancel_worker": 0.3},
    "time_limit": {"overrun": 1.5},
    "deploy": {"deploy": 0.2},
    "unread": {"unread": 0.6, "post_once": 1.0},
    "slow_start": {"slow_start": 0.6},
    "refused": {"refuse": 0.6, "post_once": 1.0},
    "overlap": {"overlap": 0.35},  # the share of steps that get one; see `_overlapped`
}
STEPS = (20, 40, 80)


def plan_of(seed: int, faults: Sequence[str], most_processes: int) -> tuple[Shape, list[Step]]:
    """The world of a seed. About half of the faults can happen in it: worlds that differ find more."""
    choose = random.Random(seed)
    shape = Shape(
        processes=choose.randint(1, most_processes),
        workers=choose.choice((1, 1, 2)),
        threads=choose.choice((1, 2, 4)),
        window=choose.choice((2, 3, 8, 4096)),
    )
    weights = dict(WORK)
    others = [fault for fault in faults if fault != "overlap"]
    for fault in others:
        if len(others) < 3 or choose.random() < 0.5:
            for kind, weight in FAULTS[fault].items():
                weights[kind] = weights.get(kind, 0.0) + weight
    kinds, chances = list(weights), list(weights.values())
    count = choose.choice(STEPS)
    plan = [(kind, choose.getrandbits(32)) for kind in choose.choices(kinds, chances, k=count)]
    return shape, plan if len(others) == len(faults) else _overlapped(seed, plan, len(others) < 3)


def _overlapped(seed: int, plan: list[Step], must_happen: bool) -> list[Step]:
    """The same steps with overlaps between. These have their own random stream: no other step changes."""
    choose = random.Random(f"overlap {seed}")
    if not must_happen and choose.random() < 0.5:
        return plan
    chance = FAULTS["overlap"]["overlap"]
    mixed: list[Step] = []
    for step in plan:
        if choose.random() < chance:
            mixed.append(("overlap", choose.getrandbits(32)))
        mixed.append(step)
    return mixed


def shrunk(plan: list[Step], breaks: Callable[[list[Step]], bool], most_tries: int = 150) -> list[Step]:
    """Fewer steps that still break it. Leaves halves out, then quarters, down to single steps."""
    size = max(1, len(plan) // 2)
    while most_tries > 0:
        position, is_smaller = 0, False
        while position < len(plan) and most_tries > 0:
            candidate = plan[:position] + plan[position + size :]
            most_tries -= 1
            if breaks(candidate):
                plan, is_smaller = candidate, True
            else:
                position += size
        if size == 1 and not is_smaller:
            break
        size = max(1, size // 2)
    return plan
