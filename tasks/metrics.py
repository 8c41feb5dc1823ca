"""Collect the metrics."""

from __future__ import annotations

from prefect import task

from tasks.options import LOCAL_TASK
from wan22core.session.finish import Metrics
from wan22core.session.finish import collect_metrics as collect
from wan22core.session.run import BenchmarkSession


@task(name="collect-metrics", **LOCAL_TASK)
def collect_metrics(session: BenchmarkSession) -> Metrics:
    """The tables of the run."""
    return collect(session)
