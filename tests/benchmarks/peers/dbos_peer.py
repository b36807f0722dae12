"""DBOS Transact on SQLite, or on Postgres if BENCH_DSN is set. Three stages: a workflow of three steps."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from dbos import DBOS, DBOSClient
from driver import DSN, FOLDER, RECORDER, Item, Peer, count_rows, main

URL = DSN.replace("postgresql://", "postgresql+psycopg://") or f"sqlite:///{FOLDER}/dbos.db"
# its default polls once a second
CONFIGS = {
    "default": {"polling_interval_sec": 1.0},
    "fast": {"polling_interval_sec": 0.02, "worker_concurrency": 50},
}
TABLES = "init"  # a worker that only makes the tables and registers the queues


class Dbos(Peer):
    bulk_size = 500

    def prepare(self) -> None:
        """The library makes its tables when it is launched."""
        subprocess.run(
            [sys.executable, __file__, "worker", TABLES], check=True, stdout=subprocess.DEVNULL, timeout=90
        )
        self._client = DBOSClient(system_database_url=URL, application_name="bench")

    def _named(self, task: str, **more: object) -> dict[str, object]:
        return {"workflow_name": task, "queue_name": "fast", "app_version": "1", **more}

    def one(self, task: str, item: Item) -> None:
        self._client.enqueue(self._named(task), item)

    def many(self, task: str, items: list[Item]) -> None:
        """There is no bulk call: many in one transaction."""
        with self._client._sys_db.engine.begin() as connection:
            for item in items:
                self._client.enqueue_in_transaction(connection, self._named(task), item)

    def delayed(self, task: str, item: Item, seconds: float) -> None:
        self._client.enqueue(self._named(task, delay_seconds=seconds), item)

    def left(self) -> int:
        query = "SELECT count(*) FROM {}workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
        if DSN:
            return count_rows(query.format("dbos."))
        import sqlite3

        with sqlite3.connect(f"{FOLDER}/dbos.db") as connection:
            return int(connection.execute(query.format("")).fetchone()[0])

    def work(self, config: str) -> None:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": URL,
                "application_version": "1",
                "executor_id": "local",
                "log_level": "ERROR",
                "enable_otlp": False,
            }
        )

        @DBOS.workflow(name="noop")
        def noop(item: Item) -> None:
            RECORDER.hit()

        @DBOS.workflow(name="lat")
        def lat(item: Item) -> None:
            RECORDER.late(item["ts"])

        @DBOS.step(name="first")
        def first(item: Item) -> Item:
            return item

        @DBOS.step(name="second")
        def second(item: Item) -> Item:
            return item

        @DBOS.step(name="third")
        def third(item: Item) -> Item:
            return item

        @DBOS.workflow(name="stage1")
        def stage1(item: Item) -> None:
            RECORDER.start()
            third(second(first(item)))
            RECORDER.hit()

        if config != TABLES:
            DBOS.listen_queues([config])
        DBOS.launch()
        for name, settings in CONFIGS.items():
            DBOS.register_queue(name, **settings)
        if config == TABLES:
            time.sleep(1)
            DBOS.destroy()
            os._exit(0)
        while True:
            time.sleep(3600)


main(Dbos)
