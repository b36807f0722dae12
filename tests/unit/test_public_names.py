"""The package's own list of names: complete, importable, and light until an engine is asked for."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

import routilux
from routilux import errors


def test_every_listed_name_is_there() -> None:
    missing = [name for name in routilux.__all__ if not hasattr(routilux, name)]
    assert missing == []
    assert set(routilux.__all__) <= set(dir(routilux))


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RoutiluxError) and kind.__module__ == errors.__name__
    }
    assert defined <= set(routilux.__all__)


def test_names_that_need_a_database_are_the_real_ones() -> None:
    from routilux.runtime import Post, Runtime, get_runtime_instance

    assert routilux.Runtime is Runtime
    assert routilux.Post is Post
    assert routilux.get_runtime_instance is get_runtime_instance


def test_defining_a_flow_does_not_load_an_engine() -> None:
    code = (
        "import sys, routilux, routilux.activation_policies, routilux.monitoring.flow_registry\n"
        "routilux.Flow('f').add_routine(routilux.Routine())\n"
        "heavy = {'sqlalchemy', 'alembic', 'apscheduler', 'typer'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_old_name_says_what_to_use_and_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"routilux\.JobState is gone: WorkerState is") as refused:
        from routilux import JobState  # noqa: F401
    assert isinstance(refused.value, errors.RemovedNameError)


def test_a_name_that_never_was_is_an_ordinary_error() -> None:
    assert not hasattr(routilux, "Nope")
    with pytest.raises(ImportError, match="cannot import name 'Nope'"):
        from routilux import Nope  # noqa: F401


@pytest.mark.parametrize(
    "kind", [errors.RemovedNameError, errors.RemovedAttributeError, errors.RemovedImportError]
)
def test_an_error_about_an_old_name_survives_the_way_to_another_process(
    kind: type[errors.RemovedNameError],
) -> None:
    again = pickle.loads(pickle.dumps(kind("old", "use new")))
    assert type(again) is kind
    assert (again.removed, again.instead, str(again)) == ("old", "use new", "old is gone: use new")
