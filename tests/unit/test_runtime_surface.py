"""What `Runtime` shows is what the reference documents; nothing more, nothing less.

`TO_GO` is what it shows beyond that: plumbing that its helpers call. It may only shrink, and is to be empty.
"""

from __future__ import annotations

import re
from pathlib import Path

from routilux import Runtime, testing

API = Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md"
TO_GO = {
    "answer_to",
    "call",
    "check_usable",
    "control",
    "encode",
    "is_engine_gone",
    "live_status",
    "now_us",
    "request",
    "submit",
    "wait_for",
}
FIELDS_TO_GO = {"drive", "ends", "engine", "most_elsewhere", "posted_elsewhere", "settings", "store"}


def documented() -> set[str]:
    """The names in the table's first column, and those that a row has as `likewise`."""
    names = set()
    for line in API.read_text().splitlines():
        if found := re.match(r"\| `Runtime\.(\w+)\(", line):
            names.add(found[1])
            _, _, likewise = line.partition("likewise ")
            names |= set(re.findall(r"`(\w+)`", likewise))
    return names


def shown() -> set[str]:
    return {name for name in dir(Runtime) if not name.startswith("_")}


def test_the_runtime_has_all_that_is_documented() -> None:
    assert documented() - shown() == set()


def test_the_runtime_shows_nothing_but_what_is_documented_and_what_is_to_go() -> None:
    assert len(documented()) > 10
    assert shown() - documented() == TO_GO


def test_a_runtime_has_no_fields_but_those_to_go() -> None:
    """`clock` and `registry` are those of a runtime for tests, and documented there."""
    with testing.runtime() as runtime:
        fields = {name for name in vars(runtime) if not name.startswith("_")}
    assert fields - {"clock", "registry"} == FIELDS_TO_GO
