"""taskiq-pg on asyncpg.

A message whose NOTIFY nobody heard is never delivered: a live worker is fed by 20 tasks.
"""

from __future__ import annotations

import asyncio
import time

from driver import DSN, RECORDER, SETTLE_S, AsyncPeer, Item, Worker, count_rows, main, payload
from taskiq.receiver import Receiver
from taskiq_pg import AsyncpgBroker

CONFIGS = {"r100": 100}  # tasks at once


def make() -> AsyncpgBroker:
    broker = AsyncpgBroker(DSN)

    @broker.task("noop")
    async def noop(item: Item) -> None:
        RECORDER.hit()

    @broker.task("lat")
    async def lat(item: Item) -> None:
        RECORDER.late(item["ts"])

    @broker.task("stage1")
    async def stage1(item: Item) -> None:
        RECORDER.start()
        await stage2.kiq(item)

    @broker.task("stage2")
    async def stage2(item: Item) -> None:
        await stage3.kiq(item)

    @broker.task("stage3")
    async def stage3(item: Item) -> None:
        RECORDER.hit()

    return broker


class TaskiqPg(AsyncPeer):
    def prepare(self) -> None:
        self._broker = make()
        self.wait(self._broker.startup())

    async def send(self, task: str, item: Item) -> None:
        found = self._broker.find_task(task)
        assert found is not None
        await found.kiq(item)

    def left(self) -> int:
        return count_rows("SELECT count(*) FROM taskiq_messages")

    def _counted(self, config: str, task: str, count: int) -> dict[str, float]:
        async def feed() -> None:
            numbers = iter(range(count))

            async def some() -> None:
                for number in numbers:
                    await self.send(task, payload(number))

            await asyncio.gather(*(some() for _ in range(20)))

        with Worker(config, task, count) as worker:
            time.sleep(SETTLE_S)
            self.wait(feed())
            return {"jobs": self._rate(worker.report(), count)}

    def work(self, config: str) -> None:
        async def run() -> None:
            broker = make()
            broker.is_worker_process = True
            await broker.startup()
            receiver = Receiver(broker, max_async_tasks=CONFIGS[config], run_startup=False)
            await receiver.listen(asyncio.Event())

        asyncio.run(run())


main(TaskiqPg)
