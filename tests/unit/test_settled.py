"""The page of what is settled is the one that the tests make, and no number is missing or there twice."""

from __future__ import annotations

import re

import pytest

from tests.support import settled


def test_the_page_is_current() -> None:
    assert settled.PAGE.read_text(encoding="utf-8") == settled.page(), "run `make docs`"


@pytest.mark.parametrize(
    ("heading", "last"), [("\n## Contradictions", 51), ("\n## What the old code did wrong", 16)]
)
def test_every_number_is_there_once_with_a_test_or_an_area(heading: str, last: int) -> None:
    section = settled.page().split(heading)[1].split("\n## What the old code did wrong")[0]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert sorted(numbers) == list(range(1, last + 1))
    assert re.findall(r"^.*\|\s*\|$", section, re.MULTILINE) == []


@pytest.mark.parametrize("marker", ["settled_row", "old_bug"], ids=["test_row", "test_old_bug"])
def test_every_test_says_in_one_sentence_what_holds(marker: str) -> None:
    for held in settled.tests(marker):
        assert held.holds.endswith("."), held.name
        assert ". " not in held.holds, held.name


@pytest.mark.parametrize("heading", ["## Contradictions", "## What the old code did wrong"])
def test_a_line_of_the_page_has_four_cells(heading: str) -> None:
    lines = settled.page().split(heading)[1].split("\n\n")[1].splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
