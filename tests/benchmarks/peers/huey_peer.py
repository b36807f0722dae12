"""huey on SQLite, with its durable default (synchronous=FULL).

At most once: a row is deleted before its handler runs.
"""

from __future__ import annotations

import os

from driver import FOLDER, RECORDER, Item, Peer, main
from huey import SqliteHuey

# config -> workers, first and longest pause between two looks at the queue
CONFIGS = {"w1": (1, 0.1, 10.0), "w4": (4, 0.1, 10.0), "poll10ms": (1, 0.01, 0.01)}


class Huey(Peer):
    def __init__(self) -> None:
        self._huey = SqliteHuey("bench", filename=os.path.join(FOLDER, "huey.db"), results=False)
        task = self._huey.task()
        stage3 = task(_named("stage3", lambda item: RECORDER.hit()))
        stage2 = task(_named("stage2", lambda item: stage3(item)))

        def first(item: Item) -> None:
            RECORDER.start()
            stage2(item)

        self._tasks = {
            "noop": task(_named("noop", lambda item: RECORDER.hit())),
            "lat": task(_named("lat", lambda item: RECORDER.late(item["ts"]))),
            "stage1": task(_named("stage1", first)),
        }

    def one(self, task: str, item: Item) -> None:
        self._tasks[task](item)

    def delayed(self, task: str, item: Item, seconds: float) -> None:
        self._tasks[task].schedule((item,), delay=seconds)

    def left(self) -> int:
        return int(self._huey.pending_count())

    def work(self, config: str) -> None:
        workers, first, longest = CONFIGS[config]
        self._huey.create_consumer(
            workers=workers, initial_delay=first, max_delay=longest, worker_type="thread", periodic=False
        ).run()


def _named(name, function):  # huey knows a task by the name of its function
    function.__name__ = name
    return function


main(Huey)
