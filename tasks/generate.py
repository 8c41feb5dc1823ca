"""Generate a video."""

from __future__ import annotations

import time

from prefect import task

from tasks.options import SESSION_TASK
from wan22core.records import RepeatKind, StageRecord
from wan22core.session.run import BenchmarkSession

_SETTLE_S = 0.25
"""Prefect records a task's start while the task already runs: on two cores that took 25 ms from what is measured."""


@task(name="generate-video", task_run_name="generate-video-{kind}-{repeat}", **SESSION_TASK)
def generate_video(session: BenchmarkSession, kind: RepeatKind, repeat: int) -> list[StageRecord]:
    """One video, stage by stage."""
    time.sleep(_SETTLE_S)
    return session.generate(kind, repeat)
