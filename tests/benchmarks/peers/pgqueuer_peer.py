"""PgQueuer on asyncpg and uvloop."""

from __future__ import annotations

import json
from datetime import timedelta

import asyncpg
import uvloop
from driver import DSN, RECORDER, AsyncPeer, Item, count_rows, main
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

# config -> batch size (10 is its default), connections for handlers to enqueue with
CONFIGS = {"b10": (10, 0), "b250": (250, 0), "b250pool": (250, 10)}


class PgQueuer(AsyncPeer):
    def __init__(self) -> None:
        super().__init__(uvloop.new_event_loop())

    def prepare(self) -> None:
        async def install() -> Queries:
            queries = Queries(AsyncpgDriver(await asyncpg.connect(DSN)))
            await queries.install()
            return queries

        self._queries = self.wait(install())

    async def send(self, task: str, item: Item) -> None:
        await self._queries.enqueue(task, json.dumps(item).encode())

    def many(self, task: str, items: list[Item]) -> None:
        bodies = [json.dumps(item).encode() for item in items]
        self.wait(self._queries.enqueue([task] * len(items), bodies, [0] * len(items)))

    def delayed(self, task: str, item: Item, seconds: float) -> None:
        self.wait(self._queries.enqueue(task, json.dumps(item).encode(), 0, timedelta(seconds=seconds)))

    def left(self) -> int:
        return count_rows("SELECT count(*) FROM pgqueuer")

    def work(self, config: str) -> None:
        batch, connections = CONFIGS[config]

        async def run() -> None:
            if connections:
                driver = AsyncpgPoolDriver(await asyncpg.create_pool(DSN, min_size=4, max_size=connections))
            else:
                driver = AsyncpgDriver(await asyncpg.connect(DSN))
            manager = QueueManager(Queries(driver))
            enqueue = manager.queries.enqueue

            @manager.entrypoint("noop")
            async def noop(job) -> None:
                RECORDER.hit()

            @manager.entrypoint("lat")
            async def lat(job) -> None:
                RECORDER.late(json.loads(job.payload)["ts"])

            @manager.entrypoint("stage1")
            async def stage1(job) -> None:
                RECORDER.start()
                await enqueue("stage2", job.payload)

            @manager.entrypoint("stage2")
            async def stage2(job) -> None:
                await enqueue("stage3", job.payload)

            @manager.entrypoint("stage3")
            async def stage3(job) -> None:
                RECORDER.hit()

            await manager.run(batch_size=batch)

        uvloop.run(run())


main(PgQueuer)
