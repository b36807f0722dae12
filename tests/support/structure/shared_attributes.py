"""Attributes of the records in memory that are written by two or more files: state that nobody owns.

    python -m tests.support.structure.shared_attributes [--of CLASS …]

A write: `x.attr = …` (also in a tuple, with an annotation, as the target of a `for`), `x.attr += …`, `del
x.attr`. Not `x.attr[key] = …` and not `x.attr.append(…)`: these change what the attribute holds, not the
attribute. The class's own file counts as one, for its constructor. mypy tells what `x` is, so equal names of
other classes do not matter. Where `x` is `Any` the write counts for no class; those of an attribute's name
that only one of the classes has are listed, so that a number that fell because types were lost is seen.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from tests.support.structure.attribute_types import owners
from tests.support.structure.classes import attributes
from tests.support.structure.sources import Source, sources

RECORDS = ("WorkerCell", "RoutineCell", "SlotQueue", "Job", "Run")
Writers = Mapping[tuple[str, str], set[str]]  # (class, attribute) -> modules


def product() -> list[Source]:
    """Without the simulation and the helpers of tests."""
    return [each for each in sources() if not f"{each.module}.".startswith("routilux.testing.")]


def written(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that is set or deleted; `x.attr[key] = …` only reads `attr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def writers(found: list[Source], kinds: tuple[str, ...]) -> tuple[Writers, Writers]:
    """Who writes what; and who writes it through `Any`, as far as the name tells whose attribute it is."""
    known, unknown = defaultdict(set), defaultdict(set)
    places = owners(found)
    names = _names(found, kinds)
    for source in found:
        for node in written(source.tree):
            place = (str(source.path), node.lineno, node.col_offset, node.attr)
            for owner in places.get(place, ()):
                kind = owner.rpartition(".")[2]
                if kind in kinds:
                    known[kind, node.attr].add(source.module)
            if place not in places and len(names.get(node.attr, ())) == 1:
                unknown[names[node.attr][0], node.attr].add(source.module)
    return known, unknown


def _names(found: list[Source], kinds: tuple[str, ...]) -> dict[str, list[str]]:
    """Attribute -> those of the classes that have it."""
    having = defaultdict(list)
    for source in found:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and node.name in kinds:
                for name in attributes(node):
                    having[name].append(node.name)
    return having


def report(kinds: tuple[str, ...] = RECORDS) -> Iterator[str]:
    known, unknown = writers(product(), kinds)
    shared = {key: modules for key, modules in sorted(known.items()) if len(modules) > 1}
    by_class = Counter(kind for kind, _ in shared)
    parts = ", ".join(f"{kind} {by_class[kind]}" for kind in kinds)
    yield f"attributes written by two or more files: {len(shared)} ({parts})"
    for (kind, name), modules in shared.items():
        yield f"    {kind}.{name}: {', '.join(sorted(modules))}"
    for (kind, name), modules in sorted(unknown.items()):
        yield f"    through Any: {kind}.{name}: {', '.join(sorted(modules))}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.support.structure.shared_attributes")
    parser.add_argument("--of", nargs="+", metavar="CLASS", default=RECORDS)
    print(*report(tuple(parser.parse_args().of)), sep="\n")
