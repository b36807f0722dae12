"""Every documented import path works, from the source tree and from a built wheel, or waits for a named
feature.

The list is that of the documentation this project was created from. What waits must fail to import, so that
whoever builds the feature finds it here and moves it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import routilux
from routilux import errors

ROOT = Path(__file__).resolve().parents[2]
WORKS = {
    "routilux": (
        "Routine",
        "Flow",
        "FlowBuilder",
        "Runtime",
        "Client",
        "Post",
        "Posted",
        "DeadLetter",
        "WorkerState",
        "JobContext",
        "ErrorHandler",
        "ErrorStrategy",
        "RetryLater",
        "GiveUp",
        "FlowRegistry",
        "RoutineTester",
        "ExecutionContext",
        "Slot",
        "Event",
        "Connection",
        "get_current_job",
        "get_current_job_id",
        "get_current_worker_state",
        "get_flow_registry",
        "get_runtime_instance",
        "immediate_policy",
        "all_slots_ready_policy",
        "batch_size_policy",
        "time_interval_policy",
        "custom_policy",
        "RoutedStdout",
        "install_routed_stdout",
        "uninstall_routed_stdout",
        "get_job_output",
        "clear_job_output",
        "RoutiluxError",
        "SlotQueueFullError",
        "IdempotencyConflictError",
        "PostManyIncomplete",
        "JobFailedError",
    ),
    "routilux.activation_policies": (
        "immediate_policy",
        "all_slots_ready_policy",
        "batch_size_policy",
        "time_interval_policy",
        "custom_policy",
    ),
    "routilux.core": ("get_current_job", "get_current_job_id", "get_current_worker_state"),
    "routilux.core.error": ("ErrorHandler", "ErrorStrategy"),
    "routilux.core.registry": ("FlowRegistry",),
    "routilux.core.slot": ("SlotQueueFullError",),
    "routilux.monitoring": (),
    "routilux.monitoring.flow_registry": ("FlowRegistry",),
    "routilux.runtime": ("Runtime", "get_runtime_instance"),
    "routilux.testing": ("RoutineTester",),
}
MONITORING = "monitoring is not built: hooks, breakpoints, debug sessions, events of jobs"
ANALYSIS = "the analysis of routines and flows is not built"
FACTORY = "flows as files (YAML, JSON) and the factory of their routines are not built"
HTTP = "the HTTP API is not built"
WAITS = {
    ("routilux", "breakpoint_policy"): MONITORING,
    ("routilux.activation_policies", "breakpoint_policy"): MONITORING,
    ("routilux.monitoring", "MonitoringRegistry"): MONITORING,
    ("routilux.monitoring", "BreakpointManager"): MONITORING,
    ("routilux.monitoring", "DebugSessionStore"): MONITORING,
    ("routilux.monitoring", "get_event_manager"): MONITORING,
    ("routilux", "RoutineAnalyzer"): ANALYSIS,
    ("routilux", "RoutineMarkdownFormatter"): ANALYSIS,
    ("routilux", "WorkflowAnalyzer"): ANALYSIS,
    ("routilux", "analyze_routine_file"): ANALYSIS,
    ("routilux", "analyze_workflow"): ANALYSIS,
    ("routilux.analysis", "RoutineAnalyzer"): ANALYSIS,
    ("routilux.analysis", "RoutineMarkdownFormatter"): ANALYSIS,
    ("routilux", "ObjectFactory"): FACTORY,
    ("routilux", "ObjectMetadata"): FACTORY,
    ("routilux.factory", "ObjectFactory"): FACTORY,
    ("routilux.factory.factory", "ObjectFactory"): FACTORY,
    ("routilux.api", "app"): HTTP,
    ("routilux.api.main", "app"): HTTP,
}
REMOVED = [
    ("routilux", "JobState"),
    ("routilux.job_state", "JobState"),
    ("routilux", "QueueOutputHandler"),
    ("routilux", "CallbackOutputHandler"),
    ("routilux", "NullOutputHandler"),
]
QUICK_START = """
import sys
from routilux import Routine, Flow, Runtime
from routilux.activation_policies import immediate_policy
from routilux.monitoring.flow_registry import FlowRegistry

class HelloWorld(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("trigger")
        self.add_event("greeting")
        def say_hello(slot_data, policy_message, worker_state):
            print("Hello, World!")
            self.emit("greeting", message="Hello, World!")
        self.set_logic(say_hello)
        self.set_activation_policy(immediate_policy())

flow = Flow("hello_flow")
flow.add_routine(HelloWorld(), "greeter")
FlowRegistry.get_instance().register_by_name("hello_flow", flow)
with Runtime(thread_pool_size=2) as runtime:
    runtime.exec("hello_flow")
    runtime.post("hello_flow", "greeter", "trigger", {})
    runtime.wait_until_all_jobs_finished(timeout=60.0)
"""
IMPORT_ALL = """
import json, pathlib, sys
for module, names in json.loads(sys.argv[1]).items():
    exec(f"from {module} import {', '.join(names)}" if names else f"import {module}")
import routilux_service.cli, routilux_migrations
ours = {n: m.__file__ for n, m in sys.modules.items() if n.split("_")[0].split(".")[0] == "routilux"}
ours = {n: file for n, file in ours.items() if file}
json.dump(ours, sys.stdout)
"""


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in WORKS.items() for name in names])
def test_a_documented_path_works(module: str, name: str) -> None:
    space: dict[str, object] = {}
    exec(f"from {module} import {name}", space)
    public = getattr(routilux, name)
    assert space[name] is public


def test_the_modules_without_documented_names_that_are_built_can_be_imported() -> None:
    for module in WORKS:
        assert import_module(module).__doc__


@pytest.mark.parametrize(("module", "name"), WAITS)
def test_what_waits_for_its_feature_cannot_be_imported(module: str, name: str) -> None:
    """If this fails the feature has come: move the path to `WORKS`."""
    with pytest.raises(ImportError):
        exec(f"from {module} import {name}", {})


@pytest.mark.parametrize(("module", "name"), REMOVED)
def test_a_documented_name_that_means_nothing_now_says_what_to_use(module: str, name: str) -> None:
    with pytest.raises(errors.RemovedImportError, match=rf"routilux\.{name} is gone: \w"):
        exec(f"from {module} import {name}", {})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a user has it: built from a copy of the sources, and nothing of it reached but by its
    wheel.
    """
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in ("routilux", "service", "migrations"):
        leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        shutil.copytree(ROOT / name, sources / name, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    _python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(sources), cwd=folder)
    [wheel] = folder.glob("*.whl")
    target = folder / "installed"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    _python("-m", "pip", "install", *quiet, "--target", str(target), str(wheel), cwd=folder)
    return target


def _python(*arguments: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_documented_paths_work_from_a_built_wheel(installed: Path, tmp_path: Path) -> None:
    answer = _python("-c", IMPORT_ALL, json.dumps(WORKS), cwd=tmp_path, PYTHONPATH=str(installed))

    files = json.loads(answer)
    assert set(WORKS) <= set(files)
    assert [file for file in files.values() if not Path(file).is_relative_to(installed)] == []


def test_the_documented_quick_start_runs_from_a_built_wheel(installed: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/quick.db"
    paths = {"PYTHONPATH": str(installed), "ROUTILUX_DATABASE_URL": url}

    assert _python("-c", QUICK_START, cwd=tmp_path, **paths) == "Hello, World!\n"


def test_the_wheel_carries_what_is_not_python(installed: Path) -> None:
    for name in ("routilux/py.typed", "routilux_service/py.typed", "routilux_migrations/script.py.mako"):
        assert (installed / name).exists(), name


@pytest.mark.settled_row(6)
def test_row_06_documented_import_paths_lead_to_the_same_classes() -> None:
    """Each documented import path leads to the class that `routilux` exports; a name that is gone says what
    to use.
    """
    import routilux.activation_policies as policies
    import routilux.core as core
    import routilux.core.error as error
    import routilux.core.registry as old_registry
    import routilux.core.slot as slot
    import routilux.monitoring.flow_registry as flow_registry
    import routilux.runtime as runtime
    import routilux.testing as testing

    assert flow_registry.FlowRegistry is old_registry.FlowRegistry is routilux.FlowRegistry
    assert runtime.Runtime is routilux.Runtime
    assert testing.RoutineTester is routilux.RoutineTester
    assert runtime.get_runtime_instance is routilux.get_runtime_instance
    assert (error.ErrorHandler, error.ErrorStrategy) == (routilux.ErrorHandler, routilux.ErrorStrategy)
    assert slot.SlotQueueFullError is routilux.SlotQueueFullError
    for name in ("get_current_job", "get_current_job_id", "get_current_worker_state"):
        assert getattr(core, name) is getattr(routilux, name)
    for name in ("immediate", "all_slots_ready", "batch_size", "time_interval", "custom"):
        assert getattr(policies, f"{name}_policy") is getattr(routilux, f"{name}_policy")
    for module in ("routilux", "routilux.job_state"):
        with pytest.raises(ImportError, match=r"WorkerState.*JobContext"):
            exec(f"from {module} import JobState")
