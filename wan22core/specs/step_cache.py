"""Step caches: forwards that take what the blocks add from an earlier step instead of computing it. Approximate."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from wan22core.specs.base import Spec
from wan22core.specs.workload import Workload


class CacheMethod(StrEnum):
    """What decides whether a forward is computed."""

    FIRST_BLOCK = "first_block"
    """What the first block adds, against what it added before: goes by the content, so nobody can say it beforehand."""
    MAGNITUDE = "magnitude"
    """How fast the residual shrinks with the steps, measured once for this model: the same steps for every content."""


class StepCache(Spec):
    """One way of leaving forwards out; diffusers' ``FirstBlockCache`` and ``MagCache``."""

    method: CacheMethod
    """What decides."""
    threshold: float = Field(gt=0)
    """``first_block``: relative change of the residual below which a forward is left out; ``magnitude``: largest sum of
    the errors that left-out steps are expected to make."""
    most_in_a_row: int = Field(default=2, ge=1)
    """Steps that ``magnitude`` leaves out one after the other, at most."""
    first_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps that ``magnitude`` always computes: in the first ones the video takes its shape."""

    def magnitudes(self, workload: Workload) -> tuple[float, ...]:
        """For each step: the mean norm of what the blocks add, by that of the step before; nearest of the measured."""
        measured = _IMAGE_TO_VIDEO if workload.image_to_video else _TEXT_TO_VIDEO
        distance = (len(measured) - 1) / max(workload.steps - 1, 1)
        return tuple(measured[round(step * distance)] for step in range(workload.steps))

    def left_out(self, workload: Workload) -> frozenset[int] | None:
        """Steps that are not computed, by the method's own rule; None where the content decides.

        The rule is that of "MagCache: Fast Video Generation with Magnitude-Aware Cache" (arXiv 2506.09045).
        """
        if self.method is not CacheMethod.MAGNITUDE:
            return None
        found: set[int] = set()
        first = int(self.first_share * workload.steps + 0.5)
        ratio, error, in_a_row = 1.0, 0.0, 0
        for step, magnitude in enumerate(self.magnitudes(workload)):
            if step < first:
                continue
            ratio, in_a_row = ratio * magnitude, in_a_row + 1
            error += abs(1 - ratio)
            if step > 0 and error <= self.threshold and in_a_row <= self.most_in_a_row:
                found.add(step)
            else:
                ratio, error, in_a_row = 1.0, 0.0, 0
        return frozenset(found)

    def computed_share(self, workload: Workload) -> float | None:
        """Share of the steps whose forwards are computed; None where the content decides."""
        left_out = self.left_out(workload)
        return None if left_out is None else 1 - len(left_out) / workload.steps


# Measured by MagCache's authors on the real TI2V-5B, 50 steps of UniPC (github.com/Zehong-Ma/MagCache, the script for
# Wan2.2); the means of the forwards with and without the prompt, which differ by less than 0.0013.
_TEXT_TO_VIDEO = (
    1.0, 0.9945, 0.9951, 0.9955, 0.9947, 0.9954, 0.9946, 0.9946, 0.9946, 0.9941, 0.9945, 0.994, 0.994, 0.9938,
    0.9935, 0.9938, 0.9933, 0.993, 0.9922, 0.992, 0.992, 0.9913, 0.9911, 0.9916, 0.9896, 0.9896, 0.9884, 0.9883,
    0.9883, 0.9871, 0.9856, 0.9851, 0.9841, 0.9828, 0.981, 0.9798, 0.9785, 0.9756, 0.974, 0.9717, 0.9691,
    0.9651, 0.9626, 0.9584, 0.9548, 0.9494, 0.9468, 0.9459, 0.9486, 0.9698,
)  # fmt: skip
_IMAGE_TO_VIDEO = (
    1.0, 0.9954, 0.9956, 0.9959, 0.9951, 0.9954, 0.9954, 0.9949, 0.995, 0.9945, 0.9948, 0.9943, 0.9943, 0.9941,
    0.9937, 0.9941, 0.9936, 0.9933, 0.9924, 0.9923, 0.9924, 0.9916, 0.9915, 0.9919, 0.9898, 0.9899, 0.9885,
    0.9885, 0.9886, 0.9874, 0.9859, 0.9854, 0.9844, 0.9831, 0.9812, 0.98, 0.9786, 0.9756, 0.9739, 0.9715,
    0.9687, 0.9643, 0.9613, 0.9564, 0.9518, 0.9445, 0.9397, 0.9358, 0.9354, 0.9664,
)  # fmt: skip
