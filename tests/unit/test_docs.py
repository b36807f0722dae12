"""What the documentation says of the code is so: signatures, errors, states, quoted programs, links, named
tests.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

import routilux
from routilux import errors, testing
from routilux.core import states

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
SIGNATURE = re.compile(r"`((?:\w+\.)?\w+)(\([^`]*\))`")


def _programs(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def _signatures() -> list[tuple[str, str]]:
    lines = (DOCS / "reference" / "api.md").read_text().splitlines()
    cells = [line.split("|")[1] if line.startswith("|") else line for line in lines]
    found = [match.groups() for cell in cells for match in SIGNATURE.finditer(cell) if _is_entry(cell)]
    return [(name, parameters) for name, parameters in found]


def _is_entry(cell: str) -> bool:
    return cell.startswith(("### `", " `"))


def _parameters(signature: inspect.Signature) -> list[str]:
    return [
        f"{parameter.kind.name} {name}={'' if parameter.default is parameter.empty else parameter.default!r}"
        for name, parameter in signature.parameters.items()
        if name not in ("self", "removed")
    ]


@pytest.mark.parametrize(("name", "parameters"), _signatures())
def test_a_signature_of_the_reference_is_that_of_the_code(name: str, parameters: str) -> None:
    target = routilux
    for part in name.split("."):
        target = getattr(target, part, None) or getattr(testing, part)
    space = {"ErrorStrategy": routilux.ErrorStrategy, "START": testing.START}
    exec(f"def documented{parameters}: pass", space)
    assert _parameters(inspect.signature(space["documented"])) == _parameters(inspect.signature(target))


def test_the_reference_names_every_public_name() -> None:
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    words = set(re.findall(r"\w+", text))
    obvious = {"Connection", "Event", "Slot", "ExecutionContext", "Posted", "RoutedStdout", "__version__"}
    others = {"get_flow_registry", "get_routed_stdout"}
    assert set(routilux.__all__) - words - obvious - others == set()


def test_the_reference_names_every_error_with_the_builtin_that_it_is() -> None:
    for line in (DOCS / "reference" / "errors.md").read_text().splitlines():
        if not line.startswith("| `"):
            continue
        _, names, base, *_ = line.split("|")
        kind = base.strip().strip("`")
        parent = getattr(errors, kind, None) or getattr(__import__("builtins"), kind)
        for name in re.findall(r"`(\w+)`", names):
            assert issubclass(getattr(errors, name), parent), name
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)} & set(routilux.__all__)
    text = (DOCS / "reference" / "errors.md").read_text()
    assert {name for name in classes if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    ("title", "statuses"),
    [
        ("Job", states.JobStatus),
        ("Worker", states.WorkerStatus),
        ("Message", states.MessageStatus),
        ("Message", states.ParkedReason),
        ("Activation", states.ActivationStatus),
    ],
)
def test_the_page_of_states_has_each_of_them(title: str, statuses: type[states.JobStatus]) -> None:
    section = (DOCS / "reference" / "states.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    assert {str(status) for status in statuses} <= set(re.findall(r"\w+", section))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page, as forges make them from its headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_programs_are_python(page: Path) -> None:
    text = page.read_text()
    for target, anchor in LINK.findall(text):
        if ":" in target:
            continue
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target + anchor
    for program in _programs(text):
        ast.parse(textwrap.dedent(program))


def test_the_glossary_has_each_term_once_in_order_and_pages_link_to_it() -> None:
    terms = re.findall(r"^### (.*)$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert terms == sorted(set(terms))
    linked = {
        anchor for page in PAGES for _, anchor in re.findall(r"(glossary\.md)(#[\w-]+)", page.read_text())
    }
    assert len(linked) > 10


def test_the_reference_does_not_lead_to_the_pages_of_the_maintainers() -> None:
    for page in (DOCS / "reference").glob("*.md"):
        assert "decisions" not in page.read_text(), page.name


def test_pre_commit_runs_what_make_check_runs() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()[1:]]


def test_the_map_for_the_next_engineer_is_short() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("\n## Map\n")[1].split("\n## ")[0]
    assert len([line for line in section.splitlines() if line]) <= 30


@pytest.mark.parametrize("page", sorted((DOCS / "tutorial").glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_what_the_tutorial_quotes_is_in_the_program_it_links_to(page: Path) -> None:
    quoted = 0
    for section in page.read_text().split("\n## ")[1:]:
        linked = re.findall(r"\]\(\.\./examples/(\w+\.py)\)", section)
        sources = "".join((DOCS / "examples" / name).read_text() for name in linked)
        for program in _programs(section):
            assert program in sources, program
            quoted += 1
    assert quoted


def test_every_example_is_in_the_tutorial() -> None:
    text = "".join(page.read_text() for page in (DOCS / "tutorial").glob("*.md"))
    names = {path.name for path in (DOCS / "examples").glob("*.py")}
    assert {name for name in names if f"(../examples/{name})" not in text} == set()


def test_the_tests_that_hold_the_guarantees_exist() -> None:
    text = (DOCS / "explanation" / "guarantees.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| P\d+ ", line)]
    assert [row.split("|")[1].strip() for row in rows] == [f"P{n}" for n in range(1, 12)]
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?`", row)
        assert named, row
        for path, test in named:
            found = ROOT / path
            assert found.exists(), path
            assert not test or f"def {test}(" in found.read_text(), f"{path}::{test}"
