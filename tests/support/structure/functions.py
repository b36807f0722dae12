"""How long functions are, how many parameters they take, which of them are handed the whole engine.

    python -m tests.support.structure.functions [--list]

- A function's length: the lines from `def` to its end without those of the docstring; blank lines and
  comments are among them, decorators not. Nested functions count by themselves too; lambdas do not count.
- Parameters: all that are written, without `self` and `cls`.
- A function takes the engine if a parameter's annotation names `Engine` and its file has that name from
  routilux; it takes it first if that is its first parameter (a method's is `self`, so methods are among the
  others).
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator

from tests.support.structure.sources import Function, Source, functions, parameters, sources

MOST_PARAMETERS = 5


def length(function: Function) -> int:
    text = function.body[0]
    docstring = 0 if ast.get_docstring(function) is None else text.end_lineno - text.lineno + 1
    return function.end_lineno - function.lineno + 1 - docstring


def parameter_count(function: Function) -> int:
    return len([each for each in parameters(function) if each.arg not in ("self", "cls")])


def percentile(values: list[int], part: float) -> int:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def takes_engine(found: list[Source]) -> Iterator[tuple[Source, Function]]:
    for source in found:
        if _has_engine(source):
            for function in functions(source.tree):
                if any(_names_engine(each.annotation) for each in parameters(function)):
                    yield source, function


def _has_engine(source: Source) -> bool:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name == "Engine":
            return True
        is_ours = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "routilux"
        if is_ours and any((alias.asname or alias.name) == "Engine" for alias in node.names):
            return True
    return False


def _names_engine(annotation: ast.expr | None) -> bool:
    if annotation is None:
        return False
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    texts = {node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant)}
    return "Engine" in names | texts


def _by_folder(found: list[tuple[Source, Function]]) -> str:
    folders = Counter(source.folder for source, _ in found)
    return ", ".join(f"{folder} {count}" for folder, count in sorted(folders.items())) or "none"


def report(*, is_long: bool = False) -> Iterator[str]:
    found = sources()
    every = [(source, function) for source in found for function in functions(source.tree)]
    lengths = [length(function) for _, function in every]
    many = [(source, each) for source, each in every if parameter_count(each) > MOST_PARAMETERS]
    yield (
        f"functions: {len(every)}; length: median {statistics.median(lengths):g}, p90"
        f" {percentile(lengths, 0.9)}"
    )
    yield (
        f"functions with more than {MOST_PARAMETERS} parameters: {len(many)},"
        f" {100 * len(many) / len(every):.1f} %"
    )
    for source, function in many if is_long else ():
        yield f"    {source.module}:{function.lineno} {function.name} {parameter_count(function)}"
    taking = list(takes_engine(found))
    first = [each for each in taking if _names_engine(parameters(each[1])[0].annotation)]
    yield f"functions that take the engine first: {len(first)} ({_by_folder(first)})"
    yield f"functions that take the engine anywhere: {len(taking)} ({_by_folder(taking)})"
    for source, function in taking if is_long else ():
        yield f"    {source.module}:{function.lineno} {function.name}"


if __name__ == "__main__":
    print(*report(is_long="--list" in sys.argv), sep="\n")
