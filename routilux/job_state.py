"""The documented import path of a class that is gone: whoever asks for it is told what there is instead."""

from __future__ import annotations

import routilux


def __getattr__(name: str) -> object:
    if name != "JobState":
        raise AttributeError(f"module 'routilux.job_state' has no attribute {name!r}")
    return getattr(routilux, name)  # raises RemovedImportError
