"""The scripts that count the code's structure find what is planted, and find the product's own classes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.structure import classes, functions, imports, post_path, shared_attributes
from tests.support.structure.imports import When
from tests.support.structure.sources import Source, sources


def planted(folder: Path, **texts: str) -> list[Source]:
    """A package `planted` with these modules; `a__b` is the module `b` in the folder `a`."""
    for name, text in {"__init__": "", **texts}.items():
        path = (
            folder.joinpath(*name.split("__")).with_suffix(".py")
            if name != "__init__"
            else folder / "__init__.py"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return sources({"planted": folder})


def test_circles_are_found_through_functions_and_types(tmp_path: Path) -> None:
    found = planted(
        tmp_path,
        one="from planted import two\n",
        two="def later():\n    from planted.three import X\n",
        three="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .one import Y\nX = 1\n",
        four="import planted.one\n",
    )
    modules = {each.module for each in found}
    every = imports.arrows(found)

    assert [(a.source, a.target, a.when) for a in every] == [
        ("planted.four", "planted.one", When.LOADING),
        ("planted.one", "planted.two", When.LOADING),
        ("planted.three", "planted.one", When.TYPES),
        ("planted.two", "planted.three", When.CALLED),
    ]
    circle = ["planted.one", "planted.three", "planted.two"]
    assert imports.circles(imports.graph_of(every, modules)) == [circle]
    assert imports.circles(imports.graph_of(every, modules, {When.LOADING, When.CALLED})) == []


@pytest.mark.parametrize(
    ("source", "target", "is_up"),
    [
        ("routilux.core.flow", "routilux.store.tables", True),
        ("routilux.engine.turn", "routilux.ownership.lease", True),
        ("routilux.ownership.lease", "routilux.execution.pool", True),
        ("routilux.runtime.runtime", "routilux.engine.engine", False),
        ("routilux.engine.turn", "routilux.engine.inbox", False),
        ("routilux.core.flow", "routilux", False),
    ],
)
def test_an_arrow_goes_up_or_beside(source: str, target: str, is_up: bool) -> None:
    assert bool(imports.upward([imports.Arrow(source, target, When.TYPES, 1)])) is is_up


RECORD = (
    "class Job:\n    def __init__(self) -> None:\n        self.status = 0\n        self.items: list[int] ="
    " []\n"
)
OTHER = "class Other:\n    status = 1\n"
WRITER = """
from typing import Any
from planted.record import Job
from planted.other import Other

def write(job: Job, jobs: list[Job], other: Other, unknown: Any) -> None:
    other.status = 1
    job.items.append(1)
    {line}
"""


@pytest.mark.parametrize(
    ("line", "known", "unknown"),
    [
        ("pass", set(), set()),
        ("job.status = 1", {"status"}, set()),
        ("jobs[0].status += 1", {"status"}, set()),
        ("job.status, x = 1, 2", {"status"}, set()),
        ("del job.items", {"items"}, set()),
        ("job.items[0] = 1", set(), set()),
        ("unknown.items = []", set(), {"items"}),
    ],
)
def test_who_writes_an_attribute_is_told_by_types(
    line: str, known: set[str], unknown: set[str], tmp_path: Path
) -> None:
    found = planted(tmp_path, record=RECORD, other=OTHER, writer=WRITER.format(line=line))

    written, guessed = shared_attributes.writers(found, ("Job",))

    assert {name for (_, name), modules in written.items() if "planted.writer" in modules} == known
    assert {name for (_, name), modules in guessed.items() if "planted.writer" in modules} == unknown


def test_attributes_and_callables_of_a_class() -> None:
    text = """
class Engine:
    __slots__ = ("slot",)
    KIND = 1
    field: int
    def __init__(self, told: Callable[[], None], plain: int) -> None:
        self.told = told
        self.plain: int = plain
        self.asked: Callable[[], None] | None = None
        self.listed: list[Callable[[], None]] = []
        self.later = lambda: None
        self.plain += 1
    def method(self) -> None:
        self.late, other = 1, 2
"""
    found = classes.attributes(ast.parse(text).body[0])

    assert set(found) == {"slot", "field", "told", "plain", "asked", "listed", "later", "late"}
    assert {name for name, is_callable in found.items() if is_callable} == {"told", "asked", "later"}


def test_functions_that_take_the_engine_are_told_by_the_import(tmp_path: Path) -> None:
    call = "def f(engine: Engine | None, *, other: int) -> None:\n    '''One.\n\n    Two.'''\n    pass\n"
    found = planted(
        tmp_path,
        ours=f"from routilux.engine.engine import Engine\n{call}",
        foreign=f"from sqlalchemy import Engine\n{call}",
    )

    [(source, function)] = functions.takes_engine(found)

    assert source.module == "planted.ours"
    assert (functions.length(function), functions.parameter_count(function)) == (2, 2)


def test_the_path_of_one_post_is_the_same_each_time() -> None:
    calls = post_path.record()

    assert post_path.changes(calls) > 0
    assert [str(call) for call in calls] == [str(call) for call in post_path.record()]


def test_the_records_that_are_counted_exist() -> None:
    """Their names are the only ones of the product that the scripts know."""
    names = {
        node.name for each in sources() for node in ast.walk(each.tree) if isinstance(node, ast.ClassDef)
    }
    assert {*shared_attributes.RECORDS, "Engine"} <= names
