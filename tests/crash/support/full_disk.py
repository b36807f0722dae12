"""A program that runs on a file system that becomes full, in a process of its own: `python full_disk.py
DIRECTORY HOW`.

`tmpfs`: a file system of 6 MiB is mounted at the directory and a filler takes what is left (the caller has
made a mount namespace). `limit`: the process may not write a file further than it is (RLIMIT_FSIZE), where
nobody may mount. Prints one word per step; what fails raises.
"""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, text

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy

RECEIVED = Table("received", MetaData(), Column("n", Integer, nullable=False))
POSTS, THREADS = 40, 4


class Full(logging.Handler):
    """Told when the runtime says that it cannot store."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "trying again" in record.getMessage():
            self.said.set()


def flow() -> FlowRegistry:
    routine = Routine()
    routine.add_slot("input")
    routine.set_activation_policy(immediate_policy())
    routine.set_logic(
        lambda slot_data, policy_message, worker_state: routine.write(
            insert(RECEIVED).values(n=slot_data["input"][0]["n"])
        )
    )
    made = Flow("f")
    made.add_routine(routine, "only")
    registry = FlowRegistry()
    registry.register_by_name("f", made)
    return registry


def fill(directory: Path, how: str) -> Callable[[], None]:
    """Nothing more can be written; returns what makes room again."""
    if how == "limit":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            print("full" if error.errno == 28 else error, flush=True)
    return filler.unlink


def main(directory: Path, how: str) -> None:
    if how == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(directory)], check=True)
    full = Full()
    logging.getLogger("routilux").addHandler(full)
    url = f"sqlite:///{directory}/routilux.db"
    with Runtime(2, database=url, registry=flow()) as runtime:
        with create_engine(url).begin() as connection:
            RECEIVED.metadata.create_all(connection)
        runtime.post_many("f", "only", "input", [{"n": n} for n in range(POSTS)])
        assert runtime.wait_until_all_jobs_finished(30)
        make_room = fill(directory, how)
        posters = [threading.Thread(target=post_all, args=(runtime, first)) for first in range(THREADS)]
        for poster in posters:
            poster.start()
        assert full.said.wait(30), "the runtime does not say that it cannot store"
        print("said", flush=True)
        before = rows(url)
        make_room()
        for poster in posters:
            poster.join(60)
        assert runtime.wait_until_all_jobs_finished(60)
        print(f"before {before} after {rows(url)}", flush=True)
    assert seen(url) == list(range(POSTS * (THREADS + 1))), seen(url)
    print("once", flush=True)


def post_all(runtime: Runtime, first: int) -> None:
    for n in range(POSTS):
        runtime.post("f", "only", "input", {"n": POSTS + first * POSTS + n, "pad": "x" * 4096})


def rows(url: str) -> int:
    return len(seen(url))


def seen(url: str) -> list[int]:
    with create_engine(url).connect() as connection:
        return list(connection.execute(text("SELECT n FROM received ORDER BY n")).scalars())


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    main(Path(sys.argv[1]), sys.argv[2])
