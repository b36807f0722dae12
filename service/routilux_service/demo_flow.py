"""The flow of `routilux demo`: an index of Python source files.

    read ──▶ parse ──▶ measure ──┬──▶ store       a row of the table `indexed_modules`
                                 └──▶ aggregate   totals in the state of the worker

`read` and `parse` raise if a file is not valid Python: its job fails, and its message becomes a dead letter.
"""

from __future__ import annotations

import ast
import tokenize
import warnings
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert

from routilux import Flow, FlowRegistry, Routine, WorkerState, get_current_job_id, immediate_policy

FLOW = "module_index"
Slots = dict[str, list[Any]]

metadata = MetaData()
# The id is the only unique key, so the checks would find a row that was written twice.
indexed_modules = Table(
    "indexed_modules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", Text, nullable=False, index=True),
    Column("run", Text, nullable=False, index=True),
    Column("path", Text, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("functions", Integer, nullable=False),
    Column("classes", Integer, nullable=False),
    Column("imports", Integer, nullable=False),
    Column("longest_function", Integer, nullable=False),
)

# Newer Python versions warn about escapes in old sources.
warnings.filterwarnings("ignore", category=SyntaxWarning)
warnings.filterwarnings("ignore", category=DeprecationWarning)


class Read(Routine):
    """Read the text of a file, in the encoding that the file declares."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("file")
        self.add_event("text")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Slots, policy_message: Any, worker_state: WorkerState) -> None:
        item = slot_data["file"][0]
        with tokenize.open(item["path"]) as source:
            self.emit("text", **item, text=source.read())


class Parse(Routine):
    """Find functions, classes and imports with `ast`."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("text")
        self.add_event("parsed")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Slots, policy_message: Any, worker_state: WorkerState) -> None:
        item = slot_data["text"][0]
        text = item.pop("text")
        found: dict[str, list[Any]] = {"functions": [], "classes": [], "imports": []}
        for node in ast.walk(ast.parse(text, item["path"])):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found["functions"].append([node.name, node.lineno, node.end_lineno])
                case ast.ClassDef():
                    found["classes"].append(node.name)
                case ast.Import():
                    found["imports"] += [alias.name for alias in node.names]
                case ast.ImportFrom():
                    found["imports"].append("." * node.level + (node.module or ""))
        self.emit("parsed", **item, **found, lines=text.count("\n"))


class Measure(Routine):
    """Count what was found."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("parsed")
        self.add_event("measured")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Slots, policy_message: Any, worker_state: WorkerState) -> None:
        item = slot_data["parsed"][0]
        functions = item["functions"]
        self.emit(
            "measured",
            run=item["run"],
            path=item["path"],
            lines=item["lines"],
            functions=len(functions),
            classes=len(item["classes"]),
            imports=len(set(item["imports"])),
            longest_function=max((last - first + 1 for _, first, last in functions), default=0),
        )


class Store(Routine):
    """Write one row to the user's own table, in the commit of this activation."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("measured")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Slots, policy_message: Any, worker_state: WorkerState) -> None:
        self.write(insert(indexed_modules).values(job_id=get_current_job_id(), **slot_data["measured"][0]))


class Aggregate(Routine):
    """Add up totals of all files of this worker."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("measured")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Slots, policy_message: Any, worker_state: WorkerState) -> None:
        item = slot_data["measured"][0]
        totals = self.get_state(worker_state)
        for name in ("lines", "functions", "classes"):
            totals[name] = totals.get(name, 0) + item[name]
        totals["files"] = totals.get("files", 0) + 1
        self.update_state(worker_state, totals)


def _flow() -> Flow:
    flow = Flow(FLOW)
    for routine_id, routine in {
        "read": Read(),
        "parse": Parse(),
        "measure": Measure(),
        "store": Store(),
        "aggregate": Aggregate(),
    }.items():
        flow.add_routine(routine, routine_id)
    flow.connect("read", "text", "parse", "text")
    flow.connect("parse", "parsed", "measure", "parsed")
    flow.connect("measure", "measured", "store", "measured")
    flow.connect("measure", "measured", "aggregate", "measured")
    return flow


FlowRegistry.get_instance().register_by_name(FLOW, _flow())
