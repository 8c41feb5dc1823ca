"""Prepare the weights."""

from __future__ import annotations

from prefect import task

from tasks.options import RETRIED
from wan22core.records import WeightsRecord
from wan22core.session.run import BenchmarkSession


@task(name="prepare-weights", **RETRIED)
def prepare_weights(session: BenchmarkSession) -> WeightsRecord | None:
    """A verified local checkpoint: there already, or made with random values."""
    return session.prepare_weights()
