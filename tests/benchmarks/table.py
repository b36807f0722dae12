"""The page of what was measured: a table for each group of figures, the sentence that says what each
measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from tests.benchmarks.figure import (
    OURS,
    Figure,
    Metric,
    Role,
    Spread,
    Target,
    Values,
    Verdict,
    judge,
    short,
    spread,
)

_INTRO = """\
# Measured by `make bench`

Written by the last run; the raw rows are in [results.json](results.json), what each word means in
[README](README.md). Medians, with the least and the most of the runs in brackets; the limit and the \
peers beside a
figure were measured in turns with it. On another machine read the ratios.
"""


def page(figures: Sequence[Figure], measured: dict[str, Any]) -> str:
    """Markdown. `measured`: what `results.read` gives."""
    done = [figure for figure in figures if figure.name in measured]
    parts = [_INTRO, _met(done, measured), "![Share of each target that is reached](latest.svg)\n"]
    for group, members in groupby(done, key=lambda figure: figure.group):
        chosen = list(members)
        rows = [line for figure in chosen for line in _lines(figure, measured[figure.name]["series"])]
        head = [
            f"## {group}\n",
            "| figure | median (range) | beside it | must reach | |",
            "| --- | --- | --- | --- | --- |",
        ]
        parts.append("\n".join([*head, *rows, "", *_notes(chosen, measured)]) + "\n")
    parts.append(_where(done, measured))
    return "\n".join(parts)


def targets(
    figures: Iterable[Figure], measured: dict[str, Any]
) -> list[tuple[Figure, Target, Verdict, Spread | None]]:
    """Every target of what was measured."""
    return [
        (figure, target, judge(figure, target, runs), spread(runs.get(target.series, ()), target.metric))
        for figure in figures
        if figure.name in measured and (runs := measured[figure.name]["series"]) is not None
        for target in figure.targets
    ]


def _met(figures: Sequence[Figure], measured: dict[str, Any]) -> str:
    verdicts = [verdict.is_met for _, _, verdict, _ in targets(figures, measured)]
    unknown = verdicts.count(None)
    rest = (
        f"; {unknown} could not be judged, as what they are compared with was not measured" if unknown else ""
    )
    return f"{verdicts.count(True)} of {len(verdicts) - unknown} targets met{rest}.\n"


def _lines(figure: Figure, runs: dict[str, list[Values]]) -> list[str]:
    """A line for each metric of each series of ours; limits and peers stand beside the first."""
    ours = [series for series in figure.series if series.role is Role.OURS]
    lines = []
    for metric in figure.metrics:
        for series in ours:
            found = spread(runs.get(series.name, ()), metric.name)
            verdicts = [
                judge(figure, target, runs)
                for target in figure.targets
                if target.metric == metric.name and target.series == series.name
            ]
            if found is None and not verdicts:
                continue
            name = ", ".join([figure.title, *([series.name] if series.name != OURS else [])])
            lines.append(
                f"| {name}: {_label(metric)} | {cell(found)} |"
                f" {_beside(figure, metric, runs) if series is ours[0] else ''}"
                f" | {'; '.join(v.words.removeprefix(f'{series.name}: ') for v in verdicts)} |"
                f" {'; '.join(map(_answer, verdicts))} |"
            )
    return lines


def _label(metric: Metric) -> str:
    return metric.unit if metric.name in metric.unit else f"{metric.name}, {metric.unit}"


def cell(found: Spread | None) -> str:
    if found is None:
        return "not measured"
    if found.count == 1:
        return f"**{short(found.median)}**"
    return f"**{short(found.median)}** ({short(found.least)}–{short(found.most)})"


def _beside(figure: Figure, metric: Metric, runs: dict[str, list[Values]]) -> str:
    others = [series for series in figure.series if series.role is not Role.OURS]
    return "; ".join(
        f"{series.name} {cell(found).replace('**', '')}"
        for series in others
        if (found := spread(runs.get(series.name, ()), metric.name)) is not None
    )


def _answer(verdict: Verdict) -> str:
    share = "" if verdict.found is None else f" ({short(verdict.found)} ×)"
    return {True: "met", False: "**not met**", None: "not measured"}[verdict.is_met] + share


def _notes(figures: Sequence[Figure], measured: dict[str, Any]) -> list[str]:
    """One line for all figures that it says the same of."""
    titles: dict[str, list[str]] = {}
    for figure in figures:
        titles.setdefault(f"{figure.note}{_told(measured[figure.name])}", []).append(figure.title)
    return [f"- **{'; '.join(names)}.** {note}" for note, names in titles.items()]


def _told(measured: dict[str, Any]) -> str:
    return "".join(f" {note}." for note in measured["notes"])


def _where(figures: Sequence[Figure], measured: dict[str, Any]) -> str:
    """One line for all figures of one run."""
    lines = ["## Measured on\n"]
    seen: dict[str, list[str]] = {}
    for figure in figures:
        row = measured[figure.name]
        versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        quick = ", with --quick: too short to be quoted" if row["is_quick"] else ""
        seen.setdefault(f"commit {row['commit']}, {row['machine']}, {versions}{quick}", []).append(
            figure.name
        )
    lines += [f"- {where}: {', '.join(names)}" for where, names in seen.items()]
    return "\n".join(lines) + "\n"
