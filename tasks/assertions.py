"""Assert the targets."""

from __future__ import annotations

from prefect import task

from tasks.options import LOCAL_TASK
from wan22core.records import RunRecord
from wan22core.session.finish import Metrics, build_record
from wan22core.session.finish import assert_targets as judge
from wan22core.session.run import BenchmarkSession


@task(name="assert-targets", **LOCAL_TASK)
def assert_targets(session: BenchmarkSession, metrics: Metrics) -> RunRecord:
    """Great Expectations judges the tables; the run's document with all verdicts."""
    return build_record(session, metrics, judge(session, metrics))
