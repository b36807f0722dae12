"""All numbers, without the long lists: `python -m tests.support.structure [--since REF]`."""

from __future__ import annotations

import argparse

from tests.support.structure import classes, functions, imports, post_path, shared_attributes, sizes

parser = argparse.ArgumentParser(prog="python -m tests.support.structure")
parser.add_argument("--since", metavar="REF", help="subjects of the commits after it")
since = parser.parse_args().since
for report in (
    post_path.report(post_path.record()),
    shared_attributes.report(),
    shared_attributes.report(("Engine",)),
    classes.report(["Engine"]),
    functions.report(),
    imports.report(),
    sizes.report(since),
):
    print(*(line for line in report if not line.startswith("    ")), sep="\n")
