"""What is to be measured: workloads, weights, recipes and the benchmark made of them. Building one touches nothing."""

from __future__ import annotations

from wan22core.specs.benchmark import (
    WAN_ENGINE,
    Architecture,
    BenchmarkSpec,
    Deadlines,
    OpaqueFunctions,
    Weights,
)
from wan22core.specs.recipe import (
    AUTO_ATTENTION,
    Loader,
    Placement,
    Precision,
    Recipe,
    Tiling,
)
from wan22core.specs.step_cache import CacheMethod, StepCache
from wan22core.specs.workload import (
    MAX_FRAMES,
    MAX_SIDE,
    SPATIAL_MULTIPLE,
    TEMPORAL_FACTOR,
    WORKLOADS,
    Workload,
    nearest_frames,
    nearest_multiple,
)

__all__ = [
    "AUTO_ATTENTION",
    "MAX_FRAMES",
    "MAX_SIDE",
    "SPATIAL_MULTIPLE",
    "TEMPORAL_FACTOR",
    "WAN_ENGINE",
    "WORKLOADS",
    "Architecture",
    "BenchmarkSpec",
    "CacheMethod",
    "Deadlines",
    "Loader",
    "OpaqueFunctions",
    "Placement",
    "Precision",
    "Recipe",
    "StepCache",
    "Tiling",
    "Weights",
    "Workload",
    "nearest_frames",
    "nearest_multiple",
]
