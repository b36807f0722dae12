"""A process of its own for one measurement: `python -m tests.benchmarks.child module function arguments`."""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    module, function, arguments = sys.argv[1:]
    answer = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    print(json.dumps(answer), flush=True)
    os._exit(0)  # what a measurement leaves behind need not be waited for


if __name__ == "__main__":
    main()
