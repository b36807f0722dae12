"""Files and lines by folder, lines that are too wide, `fmt: skip`, and how long the subjects of commits are.

    python -m tests.support.structure.sizes [--since REF]

Lines: all of a file, as `wc -l` has them. Wide: more than 110 characters, comments and docstrings too.
Subjects: their mean length over the commits after REF up to HEAD, or over all.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterator

from tests.support.structure.sources import ROOT, Source, sources

WIDTH = 110
SUBJECT = 72


def subjects(since: str | None) -> list[str]:
    """Raises `CalledProcessError` for a ref that git does not know."""
    span = ["HEAD"] if since is None else [f"{since}..HEAD"]
    done = subprocess.run(
        ["git", "log", "--format=%s", *span], cwd=ROOT, check=True, text=True, capture_output=True
    )
    return done.stdout.splitlines()


def report(since: str | None = None) -> Iterator[str]:
    by_folder: defaultdict[str, list[Source]] = defaultdict(list)
    for source in sources():
        by_folder[source.folder].append(source)
    total = [source for found in by_folder.values() for source in found]
    for folder, found in [*sorted(by_folder.items()), ("all", total)]:
        lines = [line for source in found for line in source.text.splitlines()]
        wide = sum(len(line) > WIDTH for line in lines)
        skips = sum("fmt: skip" in line for line in lines)
        yield (
            f"{folder:32} {len(found):4} files {len(lines):7,} lines, "
            f"{wide:4} over {WIDTH} columns, {skips:3} fmt: skip"
        )
    texts = subjects(since)
    if texts:
        long = sum(len(text) > SUBJECT for text in texts)
        mean = statistics.fmean(map(len, texts))
        yield f"subjects of {len(texts)} commits: mean length {mean:.0f}, {long} over {SUBJECT}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.support.structure.sizes")
    parser.add_argument("--since", metavar="REF")
    print(*report(parser.parse_args().since), sep="\n")
