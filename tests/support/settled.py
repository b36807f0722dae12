"""Makes docs/decisions/settled.md from the tests that hold what is settled: `python -m
tests.support.settled`.

Here are the subjects, by number. A test says which number it holds by a marker: `@pytest.mark.settled_row(7)`
or `@pytest.mark.old_bug(7)`. What holds is the first paragraph of its docstring. A subject without a test
names the area that will bring one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "decisions" / "settled.md"
TESTS = ROOT / "tests"


@dataclass(frozen=True, slots=True)
class Subject:
    """`rest`: the area that brings what is not here yet; all of it if there is no test."""

    text: str
    rest: str = ""


ROWS = {
    1: Subject("what logic gets as its data"),
    2: Subject("the last argument of logic"),
    3: Subject("what `exec` starts"),
    4: Subject("what `exec` returns"),
    5: Subject("waiting"),
    6: Subject("import paths", "monitoring, analysis, factory"),
    7: Subject("registering flows"),
    8: Subject("what `post` returns"),
    9: Subject("which worker a post goes to"),
    10: Subject("posting before `exec`"),
    11: Subject("how `emit` is called"),
    12: Subject("what a policy answers"),
    13: Subject("when a batch is due"),
    14: Subject("joining slots"),
    15: Subject("how much `immediate_policy` takes"),
    16: Subject("no activation policy"),
    17: Subject("one routine, several messages"),
    18: Subject("the size of the pool"),
    19: Subject("writing state"),
    20: Subject(
        "constructors with parameters",
        "process executor, flows as files and remote workers, where it is refused",
    ),
    21: Subject("when configuration may change"),
    22: Subject("how long a job can be read"),
    23: Subject("a hook `setup()`"),
    24: Subject("when a job is completed"),
    25: Subject("how an error ends a job"),
    26: Subject("whose attempts are counted"),
    27: Subject("which routines a strategy is for"),
    28: Subject("which exceptions are retried"),
    29: Subject("the numbers of RETRY"),
    30: Subject("a full slot", "HTTP API, its answer"),
    31: Subject("the watermark", "monitoring, the queue status of live slots"),
    32: Subject("parameters of `Runtime`"),
    33: Subject("words for the status of a worker"),
    34: Subject("what a time limit limits"),
    35: Subject("pause, resume and cancel", "HTTP API, its routes"),
    36: Subject("how long a pause lasts"),
    37: Subject("setting breakpoints", "breakpoints"),
    38: Subject("asking for metrics", "monitoring"),
    39: Subject("events that the routine tester captured"),
    40: Subject("what an analysis returns", "analysis"),
    41: Subject("parameters that are gone"),
    42: Subject("the prefix of the routes", "HTTP API"),
    43: Subject("the port", "HTTP API"),
    44: Subject("the body of an error", "HTTP API"),
    45: Subject("which routes need a key", "HTTP API"),
    46: Subject("a flow that is created twice", "HTTP API"),
    47: Subject("the body of a new job", "HTTP API"),
    48: Subject("the path and body of a breakpoint", "HTTP API, breakpoints"),
    49: Subject("naming a worker when it is created", "HTTP API"),
    50: Subject("metrics of a job that did nothing yet", "HTTP API, monitoring"),
    51: Subject("the form of times", "HTTP API, monitoring"),
}
BUGS = {
    1: Subject("error strategies"),
    2: Subject("slots on the routine object"),
    3: Subject("full slots"),
    4: Subject("`emit` after the first routine"),
    5: Subject("refused posts"),
    6: Subject("bursts, and the size of the pool"),
    7: Subject("the time limit of a flow"),
    8: Subject("pause and cancel"),
    9: Subject("policies that gather"),
    10: Subject("waiting"),
    11: Subject("configuration after `exec`"),
    12: Subject("state under a routine's own id"),
    13: Subject("`kill -9`"),
    14: Subject(
        "pause, metrics, output, rate limit, subscribers and unknown routes over HTTP", "HTTP API, monitoring"
    ),
    15: Subject("breakpoints that were not hit, or lost the message", "breakpoints"),
    16: Subject("programs of the documentation", "command line, its template project; built-in routines"),
}
INTRO = """# Contradictions and their answers

This page is for people who work on Routilux. The documents that Routilux was built from contradict each
other in places, and an older implementation had errors. One line for each says what holds now. The test
beside it fails if it does not hold. `make docs` makes this page from those tests.

## Contradictions

| | subject | what holds | test |
| --- | --- | --- | --- |
"""
REST = """
## Not built yet

These come with the area beside them, each with its test.

| | subject | area |
| --- | --- | --- |
"""
OLD = """
## What the old code did wrong

| | subject | what holds | test |
| --- | --- | --- | --- |
"""
OLD_REST = """
Still to come:

| | subject | area |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A test and the number that its marker says."""

    number: int
    name: str
    path: str
    holds: str


def tests(marker: str) -> list[Held]:
    """Every test that has the marker, by number."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            first = (ast.get_docstring(node) or "").split("\n\n")[0]
            where = path.relative_to(ROOT).as_posix()
            for number in _numbers(node, marker):
                found.append(Held(number, node.name, where, " ".join(first.split())))
    return sorted(found, key=lambda held: held.number)


def _numbers(test: ast.FunctionDef, marker: str) -> Iterator[int]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{marker}":
            yield ast.literal_eval(decorator.args[0])


def _built(subjects: dict[int, Subject], held: list[Held]) -> str:
    lines = []
    for one in held:
        subject = subjects[one.number]
        holds = f"{one.holds} Still to come with: {subject.rest}." if subject.rest else one.holds
        link = f"[`{one.name}`](../../{one.path})"
        lines.append(f"| {one.number} | {subject.text} | {_cell(holds)} | {link} |\n")
    return "".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _missing(subjects: dict[int, Subject], held: list[Held]) -> str:
    tested = {one.number for one in held}
    return "".join(
        f"| {number} | {subject.text} | {subject.rest} |\n"
        for number, subject in subjects.items()
        if number not in tested
    )


def page() -> str:
    """The page as it should be."""
    rows, bugs = tests("settled_row"), tests("old_bug")
    return (
        INTRO
        + _built(ROWS, rows)
        + REST
        + _missing(ROWS, rows)
        + OLD
        + _built(BUGS, bugs)
        + OLD_REST
        + _missing(BUGS, bugs)
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
