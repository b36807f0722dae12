"""The Python files of the product, parsed once, and the functions in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = {
    "routilux": ROOT / "routilux",
    "routilux_service": ROOT / "service" / "routilux_service",
    "routilux_migrations": ROOT / "migrations" / "routilux_migrations",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file. `module`: its dotted name; a package's `__init__.py` has the name of the package."""

    path: Path
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        """`routilux/core` for all that lies in it, however deep;
        `routilux` for the files beside the folders.
        """
        parts = (self.module if self.is_package else self.module.rpartition(".")[0]).split(".")
        return "/".join(parts[:2])


def sources(packages: dict[str, Path] = PACKAGES) -> list[Source]:
    """Every Python file of these packages, in the order of their paths."""
    return [
        Source(path, _module(package, path.relative_to(folder)), path.read_text(encoding="utf-8"))
        for package, folder in packages.items()
        for path in sorted(folder.rglob("*.py"))
    ]


def _module(package: str, path: Path) -> str:
    parts = [package, *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(tree: ast.AST) -> Iterator[Function]:
    """All of them: methods and nested ones too, lambdas not."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def parameters(function: Function) -> list[ast.arg]:
    """As they are written, `*args` and `**kwargs` among them."""
    spec = function.args
    stars = [each for each in (spec.vararg, spec.kwarg) if each is not None]
    return [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *stars]
