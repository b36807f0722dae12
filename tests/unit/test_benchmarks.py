"""The benchmark suite without measuring: the figures, the merging of results, the verdicts, the page, the
plot.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import plot, results, table
from tests.benchmarks.figure import FASTEST_PEER, OURS, Figure, Metric, Role, Series, Target, judge, short
from tests.benchmarks.recording import Shape, shape_of
from tests.benchmarks.registry import FIGURES, select

WHERE = {"commit": "abc", "at": "now", "is_quick": False, "machine": "a machine", "versions": {"Python": "3"}}


def _unmeasured(bench: object) -> dict[str, float]:
    raise AssertionError("nothing is measured here")


def _figure(name: str = "speed.sqlite", *targets: Target, is_higher_better: bool = True) -> Figure:
    roles = {OURS: Role.OURS, "raw": Role.LIMIT, "slow": Role.PEER, "fast": Role.PEER}
    series = tuple(Series(title, _unmeasured, role) for title, role in roles.items())
    metrics = (Metric("jobs", "jobs/s", is_higher_better),)
    return Figure(name, "Group", "a figure", "What it is.", metrics, series, targets)


RUNS = {
    OURS: [{"jobs": 100.0}, {"jobs": 300.0}, {"jobs": 200.0}],
    "slow": [{"jobs": 20.0}],
    "fast": [{"jobs": 50.0}],
}


def test_no_two_figures_have_one_name() -> None:
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_has_a_note_and_its_targets_name_what_it_measures(figure: Figure) -> None:
    names = [series.name for series in figure.series]
    assert len(set(names)) == len(names)
    assert figure.note.endswith(".")
    assert any(series.role is Role.OURS for series in figure.series)
    for target in figure.targets:
        assert target.series in names
        assert target.of in (None, FASTEST_PEER, *names)
        assert figure.metric(target.metric).is_higher_better is not None


def test_large_fills_are_measured_on_request_only() -> None:
    assert [figure for figure in select([], is_full=False) if figure.is_full] == []
    assert {figure.name for figure in select(["history"], is_full=True)} == {
        "history.sqlite",
        "history.postgres",
    }
    assert [figure.name for figure in select(["three_stages.s"], is_full=False)] == ["three_stages.sqlite"]


def test_a_word_that_selects_nothing_is_refused_with_the_names() -> None:
    with pytest.raises(SystemExit, match=r"throughputt.*three_stages\.sqlite"):
        select(["throughputt"], is_full=True)


@pytest.mark.parametrize(
    ("target", "is_met", "words"),
    [
        (Target("jobs", 200), True, "≥ 200 jobs/s"),
        (Target("jobs", 201), False, "≥ 201 jobs/s"),
        (Target("jobs", 4, of=FASTEST_PEER), True, "≥ 4 × the fastest peer"),
        (Target("jobs", 4.1, of=FASTEST_PEER), False, "≥ 4.1 × the fastest peer"),
        (Target("jobs", 1, of="slow", is_strict=True), True, "> slow"),
        (Target("jobs", 0.6, of="raw"), None, "≥ 60% of raw"),
    ],
)
def test_the_median_is_judged_and_what_was_not_measured_is_not(
    target: Target, is_met: bool | None, words: str
) -> None:
    verdict = judge(_figure("speed", target), target, RUNS)
    assert (verdict.is_met, verdict.words) == (is_met, words)


def test_where_less_is_better_the_target_is_a_ceiling_and_the_fastest_peer_the_least() -> None:
    figure = _figure(is_higher_better=False)
    assert judge(figure, Target("jobs", 200), RUNS).is_met
    assert judge(figure, Target("jobs", 199), RUNS).is_met is False
    assert judge(figure, Target("jobs", 10, of=FASTEST_PEER), RUNS).found == 10


def test_a_figure_measured_again_replaces_its_own_rows_only(tmp_path: Path) -> None:
    results.merge(tmp_path, _figure("one"), {OURS: [{"jobs": 1.0}], "raw": [{"jobs": 9.0}]}, WHERE)
    results.merge(tmp_path, _figure("two"), {OURS: [{"jobs": 2.0}]}, WHERE)
    results.merge(tmp_path, _figure("one"), {OURS: [{"jobs": 3.0}]}, {**WHERE, "commit": "def"}, ["a note"])
    measured = results.read(tmp_path)
    assert measured["one"]["series"] == {OURS: [{"jobs": 3.0}]}
    assert (measured["one"]["commit"], measured["one"]["notes"]) == ("def", ["a note"])
    assert measured["two"]["series"] == {OURS: [{"jobs": 2.0}]}


def test_the_page_has_a_row_with_range_limits_and_verdicts(tmp_path: Path) -> None:
    figures = [
        _figure("one", Target("jobs", 200), Target("jobs", 5, of=FASTEST_PEER), Target("jobs", 0.6, of="raw"))
    ]
    results.merge(tmp_path, figures[0], RUNS, WHERE, ["raw was not measured: no reason"])
    page = table.page(figures, results.read(tmp_path))
    assert (
        "| a figure: jobs/s | **200** (100–300) | slow 20; fast 50 | ≥ 200 jobs/s; ≥ 5 × the fastest peer;"
        " ≥ 60% of raw"
        " | met; **not met** (4 ×); not measured |" in page
    )
    assert "1 of 2 targets met; 1 could not be judged" in page
    assert "What it is. raw was not measured: no reason." in page
    assert "commit abc, a machine, Python 3: one" in page


def test_the_plot_is_xml_with_a_bar_for_each_target_that_was_judged(tmp_path: Path) -> None:
    figures = [_figure("one", Target("jobs", 200), Target("jobs", 0.6, of="raw"), Target("jobs", 0))]
    results.merge(tmp_path, figures[0], RUNS, WHERE)
    drawn = ElementTree.fromstring(plot.picture(table.targets(figures, results.read(tmp_path))))
    assert len(drawn.findall("{*}rect")) == 1 + 2


@pytest.mark.parametrize(
    ("statement", "shape"),
    [
        (
            'INSERT INTO routilux_messages ("worker", "seq") VALUES (?, ?), (?, ?)',
            Shape("insert", "routilux_messages", ("worker", "seq")),
        ),
        (
            'COPY routilux_messages ("worker", "seq", "status") FROM STDIN',
            Shape("insert", "routilux_messages", ("worker", "seq", "status")),
        ),
        (
            'INSERT INTO routilux_jobs ("worker", "job", "status") VALUES (?, ?, ?) ON CONFLICT ("worker",'
            ' "job")'
            ' DO UPDATE SET "status" = excluded."status", "open_count" = 0',
            Shape("change", "routilux_jobs", ("status", "open_count")),
        ),
        (
            "UPDATE routilux_messages SET status = 'consumed', consumed_by = seq + :shift WHERE worker ="
            " :worker",
            Shape("change", "routilux_messages", ("status", "consumed_by")),
        ),
        (
            'UPDATE routilux_jobs AS t SET "open_count" = n."open_count" FROM (SELECT 1) AS n WHERE t."job"'
            ' = n."job"',
            Shape("change", "routilux_jobs", ("open_count",)),
        ),
        (
            "UPDATE routilux_runtimes SET lease_until=?, heartbeat_at=? WHERE routilux_runtimes.key = ?",
            Shape("change", "routilux_runtimes", ("lease_until", "heartbeat_at")),
        ),
        ("SELECT 1 FROM routilux_runtimes WHERE key = :key", None),
        ("DELETE FROM routilux_commits WHERE n < :below", None),
    ],
)
def test_the_recorder_tells_what_a_statement_of_the_engine_writes(
    statement: str, shape: Shape | None
) -> None:
    assert shape_of(statement) == shape


@pytest.mark.parametrize(
    ("value", "words"), [(12345.6, "12,346"), (10.0, "10"), (0.2, "0.2"), (1.234, "1.23"), (0.0, "0")]
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert short(value) == words
