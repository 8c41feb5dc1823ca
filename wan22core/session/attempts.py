"""What a run tries next when a stage fails: another precision, a placement that holds less, smaller tiles. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from wan22core.errors import (
    CudaOutOfMemoryError,
    SegmentationFaultError,
    StageFailedError,
    StageTimeoutError,
    UnsupportedQuantizationError,
    Wan22Error,
    error_classes,
)
from wan22core.planning.quantization import QuantizationAttempt, QuantizationPlan
from wan22core.records import RepeatKind, Stage, StageRecord, StageStatus
from wan22core.specs import BenchmarkSpec, Recipe, Tiling

_NEXT_PRECISION_ON = (UnsupportedQuantizationError, StageTimeoutError, StageFailedError, SegmentationFaultError)
MAX_HALVINGS = 3
"""A decode that runs out of memory is tried again in tiles of half the pixels: an eighth is the last."""


class Attempts:
    """Where a run is among the ways that its recipe allows; each is tried once, from clean weights in a fresh worker.

    A precision that is unsupported, fails or is too slow gives way to the next precision, device memory that runs out
    to the next placement: another precision is not what helps then, and quality is not what is given up.
    """

    def __init__(self, plan: QuantizationPlan, recipe: Recipe) -> None:
        self._precisions = list(plan.attempts)
        self._placements = [recipe.placement, *recipe.placement_fallbacks]
        self.number = 1
        """Of the present way, from 1."""

    def follow(self, stages: Sequence[StageRecord]) -> None:
        """Goes the way that an earlier process of the run had come to by the last load that ended well.

        A precision that was given up there is not tried again: the run's videos are all of one kind.
        """
        last = max((stage.attempt for stage in stages if stage.stage is Stage.QUANTIZE and _is_ok(stage)), default=1)
        for stage in stages:
            setting_up = stage.kind is RepeatKind.SETUP
            if self.number == last or _is_ok(stage) or (stage.stage is Stage.DECODE and not setting_up):
                continue
            kind = error_classes().get(stage.error_code or "", StageFailedError)
            self.move_on(kind(stage.error or "", next_action=""), loading=setting_up)

    @property
    def precision(self) -> QuantizationAttempt:
        """The present precision and its deadline."""
        return self._precisions[0]

    def applied_to(self, spec: BenchmarkSpec) -> BenchmarkSpec:
        """The benchmark as it is run now."""
        changed = {"transformer_precision": self.precision.precision, "placement": self._placements[0]}
        return spec.model_copy(update={"recipe": spec.recipe.model_copy(update=changed)})

    def move_on(self, error: Wan22Error, *, loading: bool) -> bool:
        """Goes to the next way that may help after ``error``; False where there is none.

        Another precision helps while ``loading`` only: later the precision is in force.
        """
        if isinstance(error, CudaOutOfMemoryError):
            left = self._placements
        elif loading and isinstance(error, _NEXT_PRECISION_ON):
            left = self._precisions  # type: ignore[assignment]
        else:
            return False
        if len(left) == 1:
            return False
        del left[0]
        self.number += 1
        return True


def _is_ok(stage: StageRecord) -> bool:
    return stage.status is StageStatus.OK


def halves_tiles(recipe: Recipe, error: Wan22Error, halvings: int) -> bool:
    """Whether a decode that ended in ``error`` is tried again in smaller tiles."""
    is_allowed = recipe.vae_tiling is Tiling.AUTO and halvings < MAX_HALVINGS
    return is_allowed and isinstance(error, CudaOutOfMemoryError)
