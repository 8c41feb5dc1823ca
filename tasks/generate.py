"""Generate a video."""

from __future__ import annotations

from prefect import task

from tasks.options import SESSION_TASK
from wan22core.records import RepeatKind, StageRecord
from wan22core.session.run import BenchmarkSession


@task(name="generate-video", task_run_name="generate-video-{kind}-{repeat}", **SESSION_TASK)
def generate_video(session: BenchmarkSession, kind: RepeatKind, repeat: int) -> list[StageRecord]:
    """One video, stage by stage."""
    return session.generate(kind, repeat)
