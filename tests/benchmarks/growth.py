"""How it grows: with history, with a backlog, with bursts, readers, workers, processes and payloads."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import psycopg
from sqlalchemy import make_url

from tests.benchmarks import filling, spreading, throughput
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench, fresh, said
from tests.benchmarks.figure import Figure, Metric, Series, Target, Values
from tests.benchmarks.grown import out_of_backlog, through

KINDS = (SQLITE, POSTGRES)
MILLION = 1_000_000
JOBS = 20_000
FEWER = 10_000
KEPT = 0.9  # of the first, where the work per job is the same
RATE = Metric("jobs", "jobs/s")


def figures() -> list[Figure]:
    return [
        *map(_bursts, KINDS),
        *map(_readers, KINDS),
        *map(_workers, KINDS),
        _processes(),
        *map(_payloads, KINDS),
        *map(_storms, KINDS),
        *map(_histories, KINDS),
        *map(_backlogs, KINDS),
        *map(_start_ups, KINDS),
    ]


def _compared(
    name: str,
    title: str,
    note: str,
    series: list[Series],
    *,
    metrics: tuple[Metric, ...] = (RATE,),
    is_full: bool = False,
) -> Figure:
    """A figure whose series are to keep the pace of the first."""
    goals = tuple(Target("jobs", KEPT, series=one.name, of=series[0].name) for one in series[1:])
    return Figure(name, "Growth", title, note, metrics, tuple(series), goals, is_full)


def _bursts(kind: str) -> Figure:
    sizes = (10_000, 100_000)
    return _compared(
        f"burst.{kind.lower()}",
        f"burst of posts, {kind}",
        "One post_many into a flow of one stage; from the post to the end of the last job.",
        [Series(f"{size:,} posts", fresh(kind, spreading.burst, size)) for size in sizes],
    )


def _storms(kind: str) -> Figure:
    sizes = (500, 5_000)
    return _compared(
        f"due_at_once.{kind.lower()}",
        f"delayed posts due at one instant, {kind}",
        "From that instant until the last of them has run; each moves from its place to the end of the line.",
        [Series(f"{size:,} due", fresh(kind, spreading.due_at_once, size)) for size in sizes],
        is_full=True,
    )


def _readers(kind: str) -> Figure:
    def beside(bench: Bench) -> Values:
        with bench.database(kind) as url, _held_open(url):
            return bench.child(throughput.three_stages, url, bench.scaled(FEWER))

    return _compared(
        f"reader.{kind.lower()}",
        f"3-stage flow beside a reader, {kind}",
        "The same flow while another process holds a transaction with a snapshot open for the whole run.",
        [Series("no reader", fresh(kind, throughput.three_stages, FEWER)), Series("a reader", beside)],
    )


@contextlib.contextmanager
def _held_open(url: str) -> Iterator[None]:
    """A transaction of a stranger with a snapshot."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(str(make_url(url).database), isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM routilux_jobs").fetchone()
            yield
    else:
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as holder:
            holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM routilux_jobs")
            yield


def _workers(kind: str) -> Figure:
    def of(count: int) -> Series:
        run = fresh(kind, spreading.over_workers, FEWER, count)

        return Series(f"{count:,} worker{'s' if count > 1 else ''}", run)

    return _compared(
        f"workers.{kind.lower()}",
        f"workers in one process, {kind}",
        "The same jobs of one stage over 1, 10, 1,000 workers; eight threads post them, ten to a call.",
        [of(1), of(10), of(1_000)],
        is_full=True,
        metrics=(RATE, Metric("exec", "ms a worker", is_higher_better=False)),
    )


def _processes() -> Figure:
    def of(count: int) -> Series:
        def run(bench: Bench) -> Values:
            with bench.database(POSTGRES) as url, contextlib.ExitStack() as stack:
                jobs = bench.scaled(FEWER) // count
                children = [
                    stack.enter_context(bench.running(spreading.one_of_many, url, jobs)) for _ in range(count)
                ]
                for child in children:
                    said(child, "ready")
                for child in children:
                    assert child.stdin is not None
                    child.stdin.write("go\n")
                    child.stdin.flush()
                times = [tuple(map(float, said(child, "done").split())) for child in children]
                took = max(end for _, end in times) - min(begin for begin, _ in times)
                return {"jobs": jobs * count / took}

        return Series(f"{count} process{'es' if count > 1 else ''}", run)

    return _compared(
        "processes.postgres",
        "processes, Postgres",
        "Jobs of three stages, shared out over as many processes with a worker each; all jobs by the time"
        " from the first start to the last end.",
        [of(1), of(2), of(4)],
    )


def _payloads(kind: str) -> Figure:
    sizes = ((100, 5_000, "100 B"), (10_000, 1_000, "10 kB"), (500_000, 60, "500 kB"))

    def of(size: int, jobs: int, name: str) -> Series:
        run = fresh(kind, spreading.of_size, jobs, size)

        return Series(name, run)

    return Figure(
        f"payload.{kind.lower()}",
        "Growth",
        f"payloads through three stages, {kind}",
        "The 3-stage flow with messages of this size; MB/s counts each payload once.",
        (RATE, Metric("payload", "MB/s")),
        tuple(of(*size) for size in sizes),
    )


def _histories(kind: str) -> Figure:
    def of(history: int, name: str) -> Series:
        def run(bench: Bench) -> Values:
            url = filling.grown(bench, kind, bench.scaled(history), 0)
            return bench.child(through, url, bench.scaled(JOBS))

        return Series(name, run)

    return _compared(
        f"history.{kind.lower()}",
        f"finished jobs in the history, {kind}",
        "Jobs of one stage through a worker that has finished so many before, from the post to the end of"
        " the last.",
        [of(0, "none"), of(MILLION, "1 M"), of(10 * MILLION, "10 M")],
        is_full=True,
    )


def _backlogs(kind: str) -> Figure:
    def small(bench: Bench) -> Values:
        with bench.database(kind) as url:
            filling.fill(url, 0, bench.scaled(JOBS))
            return bench.child(out_of_backlog, url, bench.scaled(JOBS))

    def large(bench: Bench) -> Values:
        url = filling.grown(bench, kind, 0, bench.scaled(MILLION))
        return bench.child(out_of_backlog, url, bench.scaled(JOBS))

    figure = _compared(
        f"backlog.{kind.lower()}",
        f"waiting messages, {kind}",
        f"A runtime starts on a worker with so many waiting and runs the first {JOBS:,} of them; RSS is the"
        " most that the process held.",
        [Series(f"{JOBS:,} waiting", small), Series("1 M waiting", large)],
        metrics=(RATE, Metric("RSS", "MB", is_higher_better=False)),
        is_full=True,
    )
    return Figure(
        figure.name,
        figure.group,
        figure.title,
        figure.note,
        figure.metrics,
        figure.series,
        (*figure.targets, Target("RSS", 150, series="1 M waiting")),
        is_full=True,
    )


def _start_ups(kind: str) -> Figure:
    def of(history: int, waiting: int, name: str) -> Series:
        def run(bench: Bench) -> Values:
            url = filling.grown(bench, kind, bench.scaled(history), bench.scaled(waiting))
            return bench.child(out_of_backlog, url, bench.scaled(1_000))

        return Series(name, run)

    large = "1 M waiting, 10 M finished"
    return Figure(
        f"start_up.{kind.lower()}",
        "Growth",
        f"start and recovery, {kind}",
        "From the constructor of a Runtime to the first activation of a worker that an earlier runtime left.",
        (
            Metric("first activation", "s", is_higher_better=False),
            Metric("RSS", "MB", is_higher_better=False),
        ),
        (of(0, MILLION, "1 M waiting"), of(10 * MILLION, MILLION, large)),
        (Target("first activation", 2, series=large), Target("RSS", 150, series=large)),
        is_full=True,
    )
