"""How many attributes each class has, and those of the engine by name.

    python -m tests.support.structure.classes [CLASS …]

An attribute: a name in `__slots__`, a field that is annotated in the class's body, or a name that a method
sets on `self`. Methods, properties, plain class constants (so the members of an enum too) and what is
inherited do not count. A callable: annotated as one, set to a lambda, or set to a parameter that is annotated
as one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from tests.support.structure.sources import parameters, sources

SHOWN = 12


def attributes(kind: ast.ClassDef) -> dict[str, bool]:
    """Name -> whether it is a callable, in the order in which they are met."""
    found: dict[str, bool] = {}
    for node in kind.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            found |= dict.fromkeys(ast.literal_eval(node.value), False)
        elif isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            found[ast.unparse(node.target)] = _is_callable(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name, is_callable in _set_by(node):
                found[name] = found.get(name, False) or is_callable
    return found


def _set_by(method: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, bool]]:
    handed = {each.arg for each in parameters(method) if _is_callable(each.annotation)}
    for node in ast.walk(method):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store(), attr=name):
                yield name, False
            case ast.AnnAssign(
                target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation
            ):
                yield name, _is_callable(annotation)
        match node:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                is_handed = isinstance(value, ast.Name) and value.id in handed
                yield name, is_handed or isinstance(value, ast.Lambda)


def _is_callable(annotation: ast.expr | None) -> bool:
    """`Callable[…]` or one side of a union; not a list of them."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _is_callable(left) or _is_callable(right)
        case ast.Subscript(value=ast.Name(id="Callable")) | ast.Name(id="Callable"):
            return True
    return False


def report(names: list[str]) -> Iterator[str]:
    """The classes with the most attributes; then the attributes of those that are named."""
    kinds = [
        (source, node)
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    ]
    counted = sorted(
        ((len(attributes(kind)), source.module, kind) for source, kind in kinds), key=lambda e: -e[0]
    )
    yield "attributes of a class, the most: " + ", ".join(
        f"{kind.name} {n}" for n, _, kind in counted[:SHOWN]
    )
    for count, module, kind in counted:
        if kind.name in names:
            found = attributes(kind)
            callables = [name for name, is_callable in found.items() if is_callable]
            yield (
                f"{module}.{kind.name}: {count} attributes; {len(callables)} callables:"
                f" {', '.join(callables)}"
            )
            yield "    " + ", ".join(found)


if __name__ == "__main__":
    print(*report(sys.argv[1:] or ["Engine"]), sep="\n")
