"""procrastinate on psycopg, asynchronous worker; finished jobs are kept, as by default."""

from __future__ import annotations

import asyncio

import procrastinate
from driver import DSN, RECORDER, Item, Peer, count_rows, main

CONFIGS = {"c1": 1, "c20": 20}  # jobs at once; 1 is its default


def make(connector: procrastinate.BaseConnector) -> procrastinate.App:
    app = procrastinate.App(connector=connector)

    @app.task(name="noop")
    async def noop(item: Item) -> None:
        RECORDER.hit()

    @app.task(name="lat")
    async def lat(item: Item) -> None:
        RECORDER.late(item["ts"])

    @app.task(name="stage1")
    async def stage1(item: Item) -> None:
        RECORDER.start()
        await stage2.defer_async(item=item)

    @app.task(name="stage2")
    async def stage2(item: Item) -> None:
        await stage3.defer_async(item=item)

    @app.task(name="stage3")
    async def stage3(item: Item) -> None:
        RECORDER.hit()

    return app


class Procrastinate(Peer):
    def prepare(self) -> None:
        self._app = make(procrastinate.SyncPsycopgConnector(conninfo=DSN))
        self._app.open()
        self._app.schema_manager.apply_schema()

    def one(self, task: str, item: Item) -> None:
        self._app.tasks[task].defer(item=item)

    def many(self, task: str, items: list[Item]) -> None:
        self._app.tasks[task].batch_defer(*({"item": item} for item in items))

    def delayed(self, task: str, item: Item, seconds: float) -> None:
        self._app.tasks[task].configure(schedule_in={"seconds": seconds}).defer(item=item)

    def left(self) -> int:
        return count_rows("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")

    def work(self, config: str) -> None:
        pool = {"min_size": 4, "max_size": 20} if config != "c1" else {}
        app = make(procrastinate.PsycopgConnector(conninfo=DSN, **pool))

        async def run() -> None:
            async with app.open_async():
                await app.run_worker_async(concurrency=CONFIGS[config], listen_notify=True)

        asyncio.run(run())


main(Procrastinate)
