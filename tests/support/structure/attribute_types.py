"""Whose attribute an expression like `job.status` is: what mypy knows of the type of what stands before the
dot.

This module is a plugin of mypy that changes nothing and notes each attribute of a class of ours; `owners`
runs mypy with it. Other packages are not followed, so mypy is quick and its errors mean nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from mypy import build
from mypy.modulefinder import BuildSource
from mypy.options import Options
from mypy.plugin import AttributeContext, Plugin
from mypy.types import Type

from tests.support.structure.sources import ROOT, Source

Place = tuple[str, int, int, str]  # file, line, column of the expression, attribute
_noted: defaultdict[Place, set[str]] = defaultdict(set)


class _Noting(Plugin):
    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type]:
        owner, _, attribute = fullname.rpartition(".")

        def note(context: AttributeContext) -> Type:
            where = context.context
            _noted[context.api.path, where.line, where.column, attribute].add(owner)
            return context.default_attr_type

        return note


def plugin(version: str) -> type[Plugin]:
    """What mypy asks this module for."""
    return _Noting


def owners(found: list[Source]) -> dict[Place, set[str]]:
    """The classes (dotted names) that an attribute may belong to; nothing for an expression whose type is
    `Any`.
    """
    options = Options()
    options.config_file = str(ROOT / "pyproject.toml")  # mypy loads plugins only beside one; it is not read
    options.plugins = [__name__ if __name__ != "__main__" else "tests.support.structure.attribute_types"]
    options.incremental = False
    options.follow_imports = "skip"
    options.ignore_missing_imports = True
    options.check_untyped_defs = True
    _noted.clear()
    build.build([BuildSource(str(each.path), each.module) for each in found], options)
    return {(str(Path(file).resolve()), *rest): set(kinds) for (file, *rest), kinds in _noted.items()}
