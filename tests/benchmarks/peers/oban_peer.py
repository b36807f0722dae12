"""oban for Python, on a psycopg pool and uvloop.

Acknowledgements are written together with the next fetch.
"""

from __future__ import annotations

import asyncio

import uvloop
from driver import DSN, RECORDER, AsyncPeer, Item, count_rows, main
from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool


@worker(queue="default")
class Noop:
    async def process(self, job) -> None:
        RECORDER.hit()


@worker(queue="default")
class Lat:
    async def process(self, job) -> None:
        RECORDER.late(job.args["ts"])


@worker(queue="default")
class Stage1:
    async def process(self, job) -> None:
        RECORDER.start()
        await Stage2.enqueue(job.args)


@worker(queue="default")
class Stage2:
    async def process(self, job) -> None:
        await Stage3.enqueue(job.args)


@worker(queue="default")
class Stage3:
    async def process(self, job) -> None:
        RECORDER.hit()


TASKS = {"noop": Noop, "lat": Lat, "stage1": Stage1}
CONFIGS = {"l10": 10, "l100": 100}  # jobs at once; 10 is its default


class ObanPeer(AsyncPeer):
    def __init__(self) -> None:
        super().__init__(uvloop.new_event_loop())

    def prepare(self) -> None:
        async def connect() -> None:
            pool = AsyncConnectionPool(conninfo=DSN, min_size=1, max_size=4, open=False)
            await pool.open()
            await install(pool)
            self._oban = Oban(pool=pool)  # a client: no queues

        self.wait(connect())

    async def send(self, task: str, item: Item) -> None:
        await self._oban.enqueue(TASKS[task].new(item))

    def many(self, task: str, items: list[Item]) -> None:
        self.wait(self._oban.enqueue_many([TASKS[task].new(item) for item in items]))

    def delayed(self, task: str, item: Item, seconds: float) -> None:
        self.wait(self._oban.enqueue(TASKS[task].new(item, schedule_in=seconds)))

    def left(self) -> int:
        return count_rows("SELECT count(*) FROM oban_jobs WHERE state <> 'completed'")

    def work(self, config: str) -> None:
        async def run() -> None:
            async with (
                AsyncConnectionPool(conninfo=DSN, min_size=1, max_size=10, open=False) as pool,
                Oban(pool=pool, queues={"default": CONFIGS[config]}),
            ):
                await asyncio.Event().wait()

        uvloop.run(run())


main(ObanPeer)
