"""What the tests of the original's interface share."""

from __future__ import annotations

from typing import Any

from tests import api_functions
from wan22core.api import BenchmarkResult
from wan22core.records import Stage, StageStatus
from wan22core.specs import Workload

SMALL = Workload(name="small", width=64, height=64, frames=5, steps=2)
HERE = "tests.api_functions"


def functions(where: str, loader: str, generator: str) -> tuple[Any, Any]:
    """Loader and generator by their names: called in this process, or as dotted paths in a worker."""
    if where == "worker":
        return f"{HERE}:{loader}", f"{HERE}:{generator}"
    return getattr(api_functions, loader), getattr(api_functions, generator)


def statuses(result: BenchmarkResult) -> list[tuple[Stage, StageStatus]]:
    """How each stage ended, but the start."""
    return [(stage.stage, stage.status) for stage in result.stages if stage.stage is not Stage.START]
