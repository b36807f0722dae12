"""The upstream package `routilux` (0.15.3, 1.1.0): wholly in memory, one process, no durability at all.

Config `w64`: at most 64 posted items are unfinished at a time, its best case (a backlog slows it down,
O(n²)).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import psutil
from driver import SETTLE_S, Item, Peer, main, payload, percentiles

from routilux.core import Flow, FlowRegistry, Routine, Runtime

UNFINISHED = {"w64": 64}
SLOT = 1_000_000  # the default of 1000 drops items


def immediate(slots, worker_state):
    """As soon as there is data, take everything that is new, as upstream's own routines do."""
    data = {name: slot.consume_all_new() for name, slot in slots.items()}
    return any(data.values()), data, "immediate"


class Stage(Routine):
    def __init__(self, seen: Callable[[Item], None], *, is_last: bool) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=SLOT)
        if not is_last:
            self.add_event("output", ["data"])

        def logic(items, policy_message=None, worker_state=None, **_: object) -> None:
            for item in items:
                seen(item)
                if not is_last:
                    self.emit("output", worker_state=worker_state, data=item.get("data", item))

        self.set_logic(logic)
        self.set_activation_policy(immediate)


def start(stages: int, last: Callable[[Item], None]) -> tuple[Runtime, str]:
    flow = Flow(flow_id="bench")
    for number in range(stages):
        is_last = number == stages - 1
        flow.add_routine(Stage(last if is_last else lambda item: None, is_last=is_last), f"s{number}")
    for number in range(stages - 1):
        flow.connect(f"s{number}", "output", f"s{number + 1}", "input")
    registry = FlowRegistry.get_instance()
    registry.register(flow)
    registry.register_by_name("bench", flow)
    runtime = Runtime()
    worker = runtime.exec("bench").worker_id
    time.sleep(0.05)
    return runtime, worker


class Upstream(Peer):
    def drain(self, config: str, count: int) -> dict[str, float]:
        return self._through(1, UNFINISHED[config], count)

    def pipeline(self, config: str, count: int) -> dict[str, float]:
        return self._through(3, UNFINISHED[config], count)

    def _through(self, stages: int, unfinished: int, count: int) -> dict[str, float]:
        room, done, seen = threading.Semaphore(unfinished), threading.Event(), 0
        lock = threading.Lock()

        def last(item: Item) -> None:
            nonlocal seen
            with lock:
                seen += 1
                if seen == count:
                    done.set()
            room.release()

        runtime, worker = start(stages, last)
        begun = time.perf_counter()
        for number in range(count):
            room.acquire()
            runtime.post("bench", "s0", "input", payload(number), worker_id=worker)
        if not done.wait(60):
            raise RuntimeError(f"only {seen} of {count} items came out")
        return {"jobs": count / (time.perf_counter() - begun)}

    def enqueue(self, config: str, count: int) -> dict[str, float]:
        runtime, worker = start(1, lambda item: None)
        begun = time.perf_counter()
        for number in range(count):
            runtime.post("bench", "s0", "input", payload(number), worker_id=worker)
        return {"posts": count / (time.perf_counter() - begun)}

    def latency(self, config: str, count: int) -> dict[str, float]:
        samples: list[float] = []
        runtime, worker = start(1, lambda item: samples.append((time.monotonic_ns() - item["ts"]) / 1e6))
        for number in range(count):
            runtime.post("bench", "s0", "input", payload(number), worker_id=worker)
            time.sleep(0.02)
        time.sleep(0.5)
        return percentiles(samples)

    def idle(self, config: str, seconds: int) -> dict[str, float]:
        runtime, worker = start(3, lambda item: None)
        runtime.post("bench", "s0", "input", payload(0), worker_id=worker)
        time.sleep(SETTLE_S)
        process = psutil.Process(os.getpid())
        spent = sum(process.cpu_times()[:2])
        time.sleep(seconds)
        used = sum(process.cpu_times()[:2]) - spent
        return {"CPU": 100 * used / seconds, "RSS": process.memory_info().rss / 2**20}


main(Upstream)
