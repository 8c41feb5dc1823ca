"""What the tasks have in common: when Prefect may try again, and how a session is passed along."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from wan22core.errors import Wan22Error

SESSION_TASK: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""A session holds a process: nothing about it can be cached or stored."""


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only errors that are marked so are tried again; all others would fail the same way."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Wan22Error) and error.transient


RETRIED: dict[str, Any] = {
    **SESSION_TASK,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": is_transient,
}
"""For tasks that reach for the network or a database."""
