"""The documented import path of a removed class. An import raises an error that names the replacement."""

from __future__ import annotations

import routilux


def __getattr__(name: str) -> object:
    if name != "JobState":
        raise AttributeError(f"module 'routilux.job_state' has no attribute {name!r}")
    return getattr(routilux, name)  # raises RemovedImportError
