"""How far the outputs of two runs of one seed lie apart, and what a guard makes of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from wan22core.records.base import Record
from wan22core.records.verdicts import VerdictValue


class LatentSimilarity(Record):
    """Latents of B against those of A, computed in float64 over all their values."""

    values: int
    """Values in each of the two."""
    bit_equal: bool
    """Whether every value is the same."""
    cosine: float | None
    """Cosine of the angle between them; None where one of them is zero throughout."""
    relative_l2_error: float | None
    """Norm of the difference by the norm of A; None where A is zero throughout."""


class FrameSimilarity(Record):
    """Decoded frames of B against those of A, 8 bits a channel, before any encoding."""

    frames: int
    """Frames in each of the two."""
    equal_frames: int
    """Frames that are the same byte for byte."""
    mean_squared_error: float
    """Over all frames, pixels and channels, in squared steps of 255."""
    psnr_db: float | None
    """10 log10(255^2 / mean squared error); None where that error is zero, which makes it infinite."""
    worst_frame_psnr_db: float | None
    """The same of the frame that differs most; None where none differs."""
    ssim: float
    """Structural similarity of the luma (Wang et al. 2004), the mean over the frames."""
    worst_frame_ssim: float
    """The lowest of one frame."""
    temporal_error: float | None
    """Mean absolute difference, of 255, between A's change from frame to frame and B's; None for a single frame."""
    temporal_change: float | None
    """Mean absolute change from frame to frame in A, of 255: what ``temporal_error`` is to be seen beside."""


class Method(StrEnum):
    """By what the arithmetic of the two runs differs, which decides how near their outputs must be."""

    LOSSLESS = "lossless"
    """One arithmetic in another place or order: placements, loaders, tiles, attention kernels."""
    FP8 = "fp8"
    INT8 = "int8"
    FP16_ACCUMULATION = "fp16_accumulation"
    APPROXIMATE = "approximate"
    """Work that one of them skips."""
    PRECISION = "precision"
    """Two working precisions."""


class SimilarityCheck(Record):
    """One threshold of a method."""

    metric: Literal["latents_cosine", "psnr_db"]
    """What it is put on."""
    at_least: float
    """The lowest value that holds."""
    source: str
    """Where the figure comes from."""
    observed: float | None
    """What was measured; None also where nothing differs and the metric is infinite."""
    holds: bool | None
    """Whether the numbers keep it; None where there is none."""
    reason: str | None
    """Why nothing was measured, or why it holds without a number."""


class SimilarityRecord(Record):
    """Two runs of one seed, prompt, shape and weights, B against A."""

    schema_version: Literal[1] = 1
    run_a: str
    """Id of the run that is the yardstick."""
    run_b: str
    """Id of the run that is held against it."""
    recipe_a: str
    recipe_b: str
    method: Method
    weights_source: str
    """``random`` weights show numeric drift only."""
    latents: LatentSimilarity
    frames: FrameSimilarity | None
    """None where one of the runs did not keep its frames."""
    frames_reason: str | None
    """Why there is nothing about the frames."""
    checks: list[SimilarityCheck] = Field(default_factory=list)
    """The method's thresholds; none where the method has none."""
    verdict: VerdictValue
    reason: str | None
    """What is missed, or why no quality is claimed."""
