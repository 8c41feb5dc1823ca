"""The limits, and what each one is about. A target says nothing about a workload it does not name."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Severity(StrEnum):
    """How much a missed limit matters: only ``critical`` changes the state of a flow and the exit code of a gate."""

    CRITICAL = "critical"
    WARNING = "warning"


class RecipeClass(StrEnum):
    """What a recipe may change in the result."""

    LOSSLESS = "lossless"
    """bf16 placements: the same arithmetic in another place or order."""
    QUANTIZED = "quantized"
    """fp8, int8, fp16 accumulation."""
    APPROXIMATE = "approximate"
    """Step caches: skips work; counts in no gate unless its policy says so."""


EXACT_CLASSES = (RecipeClass.LOSSLESS, RecipeClass.QUANTIZED)

Metric = Literal["load_s", "generation_s", "peak_process_mib", "generation_fps", "memory_efficiency", "peak_rss_mib"]
"""A column of the ``runs`` table that a limit can be put on."""


class Target(BaseModel):
    """One limit on one metric of one workload on one architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Stable identifier, shown and stored."""
    metric: Metric
    """The judged column of ``runs``; judged on the worst repeat."""
    comparison: Literal["<", "<=", ">="]
    """How the observed value must stand to the limit."""
    limit: float = Field(gt=0)
    """The limit in ``unit``."""
    unit: str
    """Unit of limit and observed value."""
    severity: Severity
    """Only critical targets fail a run."""
    architecture: str
    """Asserted for this architecture only."""
    workload: str
    """Asserted for this workload only."""
    recipe_classes: tuple[RecipeClass, ...] = EXACT_CLASSES
    """Asserted for recipes of these classes only."""
    requires_cuda: bool = True
    """Asserted on a CUDA device only."""

    def holds(self, observed: float) -> bool:
        """Whether ``observed`` meets the limit."""
        if self.comparison == "<":
            return observed < self.limit
        if self.comparison == "<=":
            return observed <= self.limit
        return observed >= self.limit

    @property
    def about(self) -> str:
        """The rows this target speaks of, in words."""
        return f"{self.architecture} {self.workload}"


def _target(
    name: str, metric: Metric, comparison: Literal["<", "<=", ">="], limit: float, unit: str, severity: Severity
) -> Target:
    return Target(
        name=name,
        metric=metric,
        comparison=comparison,
        limit=limit,
        unit=unit,
        severity=severity,
        architecture="ti2v-5b",
        workload="2s-720p",
    )


TARGETS: tuple[Target, ...] = (
    _target("model_load_time", "load_s", "<", 300.0, "s", Severity.CRITICAL),
    _target("video_2s_generation", "generation_s", "<", 120.0, "s", Severity.CRITICAL),
    _target("vram_usage", "peak_process_mib", "<", 12_288.0, "MiB", Severity.CRITICAL),
    _target("generation_fps", "generation_fps", ">=", 0.5, "fps", Severity.WARNING),
    _target("memory_efficiency", "memory_efficiency", "<=", 0.85, "ratio", Severity.WARNING),
)
"""The targets of the mission (11.1-11.3 of the original description) and its two secondary ones."""


def _smoke_limit(name: str, metric: Metric, limit: float, unit: str) -> Target:
    return Target(
        name=name,
        metric=metric,
        comparison="<",
        limit=limit,
        unit=unit,
        severity=Severity.WARNING,
        architecture="tiny",
        workload="smoke",
        requires_cuda=False,
    )


SMOKE_LIMITS: tuple[Target, ...] = (
    _smoke_limit("smoke_load_time", "load_s", 60.0, "s"),
    _smoke_limit("smoke_generation", "generation_s", 120.0, "s"),
    _smoke_limit("smoke_rss", "peak_rss_mib", 8_192.0, "MiB"),
)
"""Wide limits that exercise the judging on ``tiny``; they say nothing about a card or about the real model."""
