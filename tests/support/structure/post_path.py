"""The path of one post: which files and functions are entered from `post()` until its job is done.

    python -m tests.support.structure.post_path [--trace] [--database URL]

A flow of one routine that does nothing, on a runtime without threads and with a clock that stands still, in
SQLite in memory. The worker is started and a first post handled before, so that what is loaded once is not
counted; then one `post(…)` and `run_until_idle()` are watched with `sys.setprofile`. Files of `routilux/`
count, but for `routilux/testing/`.

- functions: distinct code objects, so a lambda, a comprehension (Python 3.11) and a generator each count as
  one
- a change of file: a call of a function (also each time that a generator goes on) in another file than the
  call before it, in time. Returns do not count: with them it would be 414 instead of 299 at afe3700.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

import routilux
from routilux import Flow, Routine, immediate_policy, testing

PRODUCT = Path(routilux.__file__).resolve().parent
LEFT_OUT = PRODUCT / "testing"


@dataclass(frozen=True, slots=True)
class Call:
    """`depth`: how many calls of the product are around it."""

    code: CodeType
    depth: int

    @property
    def file(self) -> str:
        return Path(self.code.co_filename).relative_to(PRODUCT).as_posix()

    def __str__(self) -> str:
        return f"{'  ' * self.depth}{self.file}:{self.code.co_qualname}"


class Recorder:
    """Notes the calls in the product's files while it is entered."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._depth = 0

    def __enter__(self) -> Recorder:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "return") or not _is_product(frame.f_code.co_filename):
            return
        if event == "return":
            self._depth -= 1
        else:
            self.calls.append(Call(frame.f_code, self._depth))
            self._depth += 1


def _is_product(file: str) -> bool:
    return file.startswith(f"{PRODUCT}/") and not file.startswith(f"{LEFT_OUT}/")


class Nothing(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: object, policy_message: object, worker_state: object) -> None:
        pass


def record(database: str = "sqlite://") -> list[Call]:
    """The calls of one post, in order."""
    flow = Flow("one")
    flow.add_routine(Nothing(), "only")
    with testing.runtime(flow, database=database) as runtime:
        runtime.exec("one")
        runtime.post("one", "only", "input", {"n": 1})
        runtime.run_until_idle()
        gc.disable()  # what others left behind may end in a call of the product
        try:
            with Recorder() as recorder:
                _, job = runtime.post("one", "only", "input", {"n": 2})
                runtime.run_until_idle()
        finally:
            gc.enable()
        assert job.status == "completed"
    return recorder.calls


def changes(calls: Sequence[Call]) -> int:
    """How often a call is in another file than the one before; the first is one too."""
    files = [call.code.co_filename for call in calls]
    return sum(file != before for file, before in zip(files, [None, *files], strict=False))


def report(calls: Sequence[Call]) -> Iterator[str]:
    files, functions = {call.file for call in calls}, {call.code for call in calls}
    yield (
        f"one post: {len(files)} files, {len(functions)} functions, {len(calls)} calls, "
        f"{changes(calls)} changes of file"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.support.structure.post_path")
    parser.add_argument(
        "--trace", action="store_true", help="each call with its depth; * where the file changes"
    )
    parser.add_argument("--database", default="sqlite://", help="default: SQLite in memory")
    options = parser.parse_args()
    calls = record(options.database)
    if options.trace:
        before = ""
        for call in calls:
            print("*" if call.file != before else " ", call)
            before = call.file
    print(*report(calls), sep="\n")
