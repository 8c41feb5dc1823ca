"""Set up the quantization."""

from __future__ import annotations

from prefect import task

from tasks.options import SESSION_TASK
from wan22core.planning.quantization import QuantizationPlan
from wan22core.session.run import BenchmarkSession


@task(name="set-up-quantization", **SESSION_TASK)
def set_up_quantization(session: BenchmarkSession) -> QuantizationPlan:
    """The precisions to try, their deadlines, their order."""
    return session.set_up_quantization()
