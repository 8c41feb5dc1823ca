"""Measure the memory."""

from __future__ import annotations

from prefect import task

from tasks.options import LOCAL_TASK
from wan22core.records import MemoryPeaks
from wan22core.session.run import BenchmarkSession


@task(name="measure-vram", **LOCAL_TASK)
def measure_vram(session: BenchmarkSession) -> MemoryPeaks:
    """The peaks over all stages; the worker ends here."""
    return session.finish_measuring()
