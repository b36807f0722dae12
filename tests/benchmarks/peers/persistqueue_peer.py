"""persist-queue's SQLiteAckQueue.

A library without a worker: the loop below gets, handles, puts on, acknowledges.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings

from driver import FOLDER, RECORDER, WARM, Item, Peer, Worker, main, payload, percentiles
from persistqueue import SQLiteAckQueue

warnings.simplefilter("ignore")
NAMES = ("noop", "lat", "stage1", "stage2", "stage3")


class PersistQueue(Peer):
    def __init__(self) -> None:
        self._queues = {
            name: SQLiteAckQueue(FOLDER, name=name, multithreading=True, auto_commit=True) for name in NAMES
        }

    def one(self, task: str, item: Item) -> None:
        self._queues[task].put(item)

    def left(self) -> int:
        with sqlite3.connect(os.path.join(FOLDER, "data.db")) as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE name LIKE 'ack_queue%' AND type = 'table'"
            )
            return sum(
                connection.execute(f"SELECT count(*) FROM {name} WHERE status < 5").fetchone()[0]
                for (name,) in tables.fetchall()
            )

    def latency(self, config: str, count: int) -> dict[str, float]:
        """Producer and consumer in one process: another process would poll every ten seconds."""
        with Worker("both", "lat", count + WARM) as worker:
            return percentiles(worker.report()["samples"][WARM:])

    def work(self, config: str) -> None:
        match os.environ["BENCH_TASK"]:
            case "noop":
                self._handle("noop", RECORDER.hit)
            case "lat":
                threading.Thread(
                    target=self._handle, args=("lat", lambda item: RECORDER.late(item["ts"]))
                ).start()
                for number in range(RECORDER.expected):
                    self.one("lat", payload(number))
                    time.sleep(0.02)
            case _:
                self._three_stages()

    def _handle(self, name: str, handler) -> None:
        queue = self._queues[name]
        while True:
            item = queue.get()
            handler(item)
            queue.ack(item)

    def _three_stages(self) -> None:
        """Breadth first with one thread: all of the first stage, then of the second, then of the third."""
        first, second, third = (self._queues[name] for name in NAMES[2:])
        RECORDER.start()
        for source, target in ((first, second), (second, third)):
            for _ in range(RECORDER.expected):
                item = source.get()
                target.put(item)
                source.ack(item)
        self._handle("stage3", RECORDER.hit)


main(PersistQueue)
