"""Flows and their parts. Plain Python: no SQL, no threads, no clock."""

from routilux.core.context import get_current_job, get_current_job_id, get_current_worker_state

__all__ = ["get_current_job", "get_current_job_id", "get_current_worker_state"]
