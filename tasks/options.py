"""What the tasks have in common: when Prefect may try again or ends one, and how a session is passed along."""

from __future__ import annotations

from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from wan22core.errors import Wan22Error

P = ParamSpec("P")
R = TypeVar("R")
BELT_S = 60.0

SESSION_TASK: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""A session holds a process: nothing about it can be cached or stored."""


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only errors that are marked so are tried again; all others would fail the same way."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Wan22Error) and error.transient


LOCAL_TASK: dict[str, Any] = {**SESSION_TASK, "timeout_seconds": 600}
"""For what only this process does, in seconds as a rule."""


def belted(task: Task[P, R], limit_s: float) -> Task[P, R]:
    """The task with Prefect's timeout as the outer belt, a minute after the worker's own deadlines have all passed.

    It ends a parent that is stuck itself, which then fails the flow. A stage is ended by the worker's deadline: Prefect
    can't stop a blocked C call.
    """
    return task.with_options(timeout_seconds=limit_s + BELT_S)


RETRIED: dict[str, Any] = {
    **SESSION_TASK,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": is_transient,
}
"""For tasks that reach for the network or a database."""
