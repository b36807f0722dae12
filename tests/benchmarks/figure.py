"""What a figure is: what it measures, beside what, and what it must reach.

Plain records; nothing is measured here.

A figure has series that are measured in turns (A, B, A, B, …), so that noise hits each of them: Routilux, the
limit of the raw driver, other systems. One run of a series gives a value for each metric.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench

OURS = "Routilux"
FASTEST_PEER = "the fastest peer"
Values = Mapping[str, float]


class Role(StrEnum):
    OURS = "ours"
    LIMIT = "limit"  # what the machine can do at best
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Metric:
    """`is_higher_better` None: neither, it explains another metric."""

    name: str
    unit: str
    is_higher_better: bool | None = True


@dataclass(frozen=True, slots=True)
class Series:
    """`run` measures once."""

    name: str
    run: Callable[[Bench], Values]
    role: Role = Role.OURS


@dataclass(frozen=True, slots=True)
class Target:
    """The median of `metric` in `series` reaches `bound`, or `bound` × that of the series `of`.

    `is_strict`: more than that, not as much. `of_metric`: of the other series, if it has another name.
    """

    metric: str
    bound: float
    series: str = OURS
    of: str | None = None
    of_metric: str | None = None
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """`name` selects it and keys its results; `note` says in one sentence what is measured.

    `is_full`: needs large fills or a long preparation, measured with BENCH_FULL=1 only.
    """

    name: str
    group: str
    title: str
    note: str
    metrics: tuple[Metric, ...]
    series: tuple[Series, ...]
    targets: tuple[Target, ...] = ()
    is_full: bool = False

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)


@dataclass(frozen=True, slots=True)
class Spread:
    """The runs of one metric of one series."""

    median: float
    least: float
    most: float
    count: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`is_met` None: what it needs was not measured."""

    words: str
    is_met: bool | None
    found: float | None = None  # the share, for a target that is relative


def spread(runs: Sequence[Values], metric: str) -> Spread | None:
    """Median, least and most of the runs that have this metric."""
    values = sorted(run[metric] for run in runs if metric in run)
    if not values:
        return None
    return Spread(statistics.median(values), values[0], values[-1], len(values))


def judge(figure: Figure, target: Target, runs: Mapping[str, Sequence[Values]]) -> Verdict:
    """Whether the measured runs, by series, meet a target."""
    is_floor = figure.metric(target.metric).is_higher_better is not False
    words = _words(figure, target, is_floor=is_floor)
    found = spread(runs.get(target.series, ()), target.metric)
    if found is None:
        return Verdict(words, None)
    value, share = found.median, None
    if target.of is not None:
        other = _other(figure, target, runs)
        if other is None or other == 0:
            return Verdict(words, None)
        value = share = value / other
    if target.is_strict:
        return Verdict(words, value > target.bound if is_floor else value < target.bound, share)
    return Verdict(words, value >= target.bound if is_floor else value <= target.bound, share)


def _other(figure: Figure, target: Target, runs: Mapping[str, Sequence[Values]]) -> float | None:
    metric = target.of_metric or target.metric
    if target.of == FASTEST_PEER:
        names = [series.name for series in figure.series if series.role is Role.PEER]
    else:
        names = [str(target.of)]
    medians = [found.median for name in names if (found := spread(runs.get(name, ()), metric))]
    if not medians:
        return None
    return max(medians) if figure.metric(metric).is_higher_better is not False else min(medians)


def _words(figure: Figure, target: Target, *, is_floor: bool) -> str:
    sign = (">" if target.is_strict else "≥") if is_floor else ("<" if target.is_strict else "≤")
    whose = "" if target.series == OURS else f"{target.series}: "
    if target.of is None:
        return f"{whose}{sign} {short(target.bound)} {figure.metric(target.metric).unit}"
    if target.bound == 1:
        return f"{whose}{sign} {target.of}"
    times = f"{target.bound:.0%} of" if target.bound < 1 else f"{target.bound:g} ×"
    return f"{whose}{sign} {times} {target.of}"


def short(value: float) -> str:
    """A number for people: about three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")
