"""Circles between modules, and imports that go up the layers.

    python -m tests.support.structure.imports [--edges]

An arrow leads from a module to each module that it imports, at the top of the file, inside a function, or
only for types (`if TYPE_CHECKING`). `from a.b import c` leads to the module `a.b.c` if there is one, else to
`a.b`. A circle is a set of modules each of which leads to all others. Layers are told by the first part of a
name, so a folder that does not exist yet, or not any more, does no harm.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from tests.support.structure.sources import Source, sources

LAYERS: tuple[tuple[str, ...], ...] = (  # from the top; two in one line must not import each other
    ("routilux_service",),
    ("routilux.testing",),
    ("routilux.runtime",),
    ("routilux.ownership", "routilux.execution"),
    ("routilux.engine",),
    ("routilux.store",),
    ("routilux.core",),
    ("routilux.errors",),
)


class When(StrEnum):
    LOADING = "when loaded"
    CALLED = "in a function"
    TYPES = "for types"


@dataclass(frozen=True, order=True, slots=True)
class Arrow:
    source: str
    target: str
    when: When
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} -> {self.target} ({self.when})"


def arrows(found: list[Source]) -> list[Arrow]:
    """All imports of one module of ours by another, each once for each place."""
    modules = {each.module for each in found}
    every = {arrow for each in found for arrow in _arrows_of(each, each.tree, When.LOADING, modules)}
    return sorted(arrow for arrow in every if arrow.source != arrow.target)


def _arrows_of(source: Source, node: ast.AST, when: When, modules: Set[str]) -> Iterator[Arrow]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in _targets(source, child, modules):
                yield Arrow(source.module, target, when, child.lineno)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _arrows_of(source, child, When.TYPES, modules)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _arrows_of(source, child, When.CALLED, modules)
        else:
            yield from _arrows_of(source, child, when, modules)


def _targets(source: Source, node: ast.Import | ast.ImportFrom, modules: Set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = node.module or ""
        if node.level:
            parts = source.module.split(".")
            package = parts[: len(parts) - node.level + source.is_package]
            base = ".".join([*package, *([node.module] if node.module else [])])
        names = [name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names]
    return (name for name in names if name in modules)


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one module, the largest first."""
    reached = {module: _reach(graph, module) for module in graph}
    found = {
        tuple(sorted({other for other in reached[module] if module in reached[other]})) for module in graph
    }
    return sorted((list(part) for part in found if len(part) > 1), key=lambda part: (-len(part), part))


def _reach(graph: Mapping[str, Set[str]], start: str) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        for target in graph[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


def graph_of(
    found: list[Arrow], modules: Set[str], kinds: Set[When] = frozenset(When)
) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for arrow in found:
        if arrow.when in kinds:
            graph[arrow.source].add(arrow.target)
    return graph


def layer_of(module: str) -> tuple[int, str] | None:
    """Its place from the top and the name there; None for a module that belongs to no layer."""
    for place, names in enumerate(LAYERS):
        for name in names:
            if f"{module}.".startswith(f"{name}."):
                return place, name
    return None


def upward(found: list[Arrow]) -> list[Arrow]:
    """Those that lead to a higher layer, or to another part of the same layer."""
    return [arrow for arrow in found if _goes_up(layer_of(arrow.source), layer_of(arrow.target))]


def _goes_up(source: tuple[int, str] | None, target: tuple[int, str] | None) -> bool:
    return source is not None and target is not None and source != target and target[0] <= source[0]


def report(*, has_edges: bool = False) -> Iterator[str]:
    found = sources()
    modules = {each.module for each in found}
    every = arrows(found)
    loading = circles(graph_of(every, modules, {When.LOADING}))
    running = circles(graph_of(every, modules, {When.LOADING, When.CALLED}))
    parts = circles(graph_of(every, modules))
    links = {(arrow.source, arrow.target) for arrow in every}
    pairs = {(one, other) for one, other in links if one < other and (other, one) in links}
    yield f"modules {len(modules)}, arrows {len(links)}"
    yield f"circles when loaded: {len(loading)}; with imports in functions: {len(running)}"
    yield from (f"    {', '.join(part)}" for part in running)
    yield (
        f"circles with types too: {len(parts)}, of {', '.join(str(len(part)) for part in parts) or 'no'}"
        " modules"
    )
    for part in parts:
        yield f"    {len(part)}: {', '.join(part)}"
        if has_edges:
            yield from (f"        {a}" for a in every if a.source in part and a.target in part)
    yield f"pairs of modules that import each other: {len(pairs)}"
    yield from (f"    {one}, {other}" for one, other in sorted(pairs))
    up = upward(every)
    yield f"arrows up the layers: {len(up)}"
    yield from (f"    {arrow}" for arrow in up)


if __name__ == "__main__":
    print(*report(has_edges="--edges" in sys.argv), sep="\n")
