"""The texts are in plain English: no archaic or private words, and no lines that are too long.

`CONTRIBUTING.md` says how to write; here are the words to avoid, each with a better one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS: tuple[str, ...] = (
    "routilux",
    "service",
    "migrations",
    "docs/examples",
)  # their *.py files are searched, too
COLUMNS = 110
LONG_LINES = {"latest.md"}  # written by `make bench`
INSTEAD = {
    r"whoever|whomever|whosoever": "the process that, the caller that",
    r"for ever": "permanently, without end",
    r"naught|nought": "zero, nothing, reset",
    r"anew|afresh": "again, from the start",
    r"of which": "a sentence of its own",
    r"whence|whither|hitherto|thereof|wherein|herein|whereof|lest|whilst|amidst": "a common word",
    r"convict(s|ed|ing)?|condemn(s|ed|ing)?|verdicts?": "reject, rejection",
    r"acquit(s|ted|ting|tal)?": "clear",
    r"bur(y|ies|ied|ying)": "make a dead letter, mark as dead",
    r"heal(s|ed|ing)?": "recover",
    r"patiently": "retry while errors are transient",
    r"lone run": "exclusive run",
    r"at the door": "before anything is stored",
    r"there and back": "a round trip",
    r"set(s|ting)? aside": "make a dead letter, park",
    r"br(eaks?|oke) off|broken off": "interrupt, raise an unexpected error",
    r"is none that|are none that": "is not, cannot",
    r"gives? the interpreter away|gave the interpreter away": "release the GIL",
    r"in line anew|comes? back into line": "is requeued",
    r"now and then": "sometimes",
    r"without a word": "without notice",
}
_GAP = r"[\s#>]+"  # a phrase may go on in the next line of a text, a comment or a quotation
BANNED = re.compile(rf"\b(?:{'|'.join(INSTEAD).replace(' ', _GAP)})\b", re.IGNORECASE)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = sorted(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _found(text: str) -> list[str]:
    """Each banned word with its line."""
    return [f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in BANNED.finditer(text)]


@pytest.mark.parametrize("path", [*PAGES, *CODE], ids=_name)
def test_a_text_has_no_word_that_a_stranger_must_learn_first(path: Path) -> None:
    assert _found(path.read_text(encoding="utf-8")) == [], "see INSTEAD for better words"


@pytest.mark.parametrize("path", [page for page in PAGES if page.name not in LONG_LINES], ids=_name)
def test_a_line_of_a_page_fits(path: Path) -> None:
    prose = re.sub(r"```.*?```", lambda fence: "\n" * fence[0].count("\n"), path.read_text(), flags=re.DOTALL)
    lines = [
        re.sub(r"\]\([^)]*\)", "]", line) for line in prose.splitlines()
    ]  # targets of links do not count
    too_long = [
        number
        for number, line in enumerate(lines, 1)
        if len(line) > COLUMNS and not line.startswith(("|", "#")) and "://" not in line
    ]
    assert too_long == []


@pytest.mark.parametrize(
    "text",
    [
        "for whoever\nasks",
        "# it waits for\n    # ever",
        "at naught",
        "one verdict",
        "a run broke off",
        "For ever",
    ],
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    assert len(_found(text)) == 1


@pytest.mark.parametrize(
    "text", ["forever young", "a healthy server", "renewed", "the highest", "because of it"]
)
def test_the_search_leaves_other_words_alone(text: str) -> None:
    assert _found(text) == []
