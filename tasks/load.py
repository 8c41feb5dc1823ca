"""Load the model."""

from __future__ import annotations

from prefect import task

from tasks.options import SESSION_TASK
from wan22core.records import StageRecord
from wan22core.session.run import BenchmarkSession


@task(name="load-model", **SESSION_TASK)
def load_model(session: BenchmarkSession) -> list[StageRecord]:
    """Loads and quantizes under the plan, with its fallbacks."""
    return session.load_model()
