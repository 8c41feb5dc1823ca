"""The guard: how near the outputs of two runs must be, by what their arithmetic differs in. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from wan22core.records import (
    FrameSimilarity,
    LatentSimilarity,
    Method,
    RunRecord,
    SimilarityCheck,
    SimilarityRecord,
    VerdictValue,
)
from wan22core.targets import RecipeClass

_FP8_FORWARD_ERROR = 0.043  # relative error of one row-wise fp8 forward of the 5B transformer, measured on an H100
_VELOCITY = math.sqrt(2)  # norm of noise less latents, by that of the latents, both of unit variance
_GUIDANCE = math.hypot(5, 4)  # guidance 5 adds independent errors of two forwards as 5 c - 4 u


class Threshold(NamedTuple):
    """The lowest value of a metric that holds."""

    metric: Literal["latents_cosine", "psnr_db"]
    at_least: float
    source: str


def explained_cosine(forward_error: float) -> float:
    """The lowest cosine that a relative error of the forwards explains, where the model does not amplify it.

    The steps' weights add up to 1, so errors that all point one way add up to one forward's, times what guidance makes
    of it; an error e at a right angle to the latents leaves a cosine of 1 / sqrt(1 + e^2).
    """
    return 1 / math.hypot(1, forward_error * _VELOCITY * _GUIDANCE)


_QUANTIZED = Threshold(
    "latents_cosine",
    round(explained_cosine(_FP8_FORWARD_ERROR), 2),
    "what an error of 0.043 in each forward (measured, fp8) explains: docs/similarity.md",
)
THRESHOLDS: dict[Method, tuple[Threshold, ...]] = {
    Method.LOSSLESS: (
        Threshold("latents_cosine", 0.9999, "this project's bar for one arithmetic in another order"),
        Threshold("psnr_db", 40.0, "this project's bar for a decode in tiles"),
    ),
    Method.FP8: (_QUANTIZED,),
    Method.INT8: (_QUANTIZED._replace(source=f"as for fp8, until an int8 forward is measured: {_QUANTIZED.source}"),),
}
"""A method that is not here has none: its numbers are shown, and nothing is claimed."""


def judge_similarity(
    a: RunRecord,
    b: RunRecord,
    latents: LatentSimilarity,
    frames: FrameSimilarity | None,
    frames_reason: str | None,
) -> SimilarityRecord:
    """B held against A: a broken threshold fails, a missing number or random weights leave it not measured."""
    method = method_of(a, b)
    checks = [_checked(each, latents, frames, frames_reason) for each in THRESHOLDS.get(method, ())]
    verdict, reason = _verdict(method, checks, weights_source=b.labels.weights_source)
    return SimilarityRecord(
        run_a=a.run_id,
        run_b=b.run_id,
        recipe_a=a.labels.recipe,
        recipe_b=b.labels.recipe,
        method=method,
        weights_source=b.labels.weights_source,
        latents=latents,
        frames=frames,
        frames_reason=frames_reason,
        checks=checks,
        verdict=verdict,
        reason=reason,
    )


def method_of(a: RunRecord, b: RunRecord) -> Method:
    """By what the two differ, from the census of what was really run: a fallback is no quantization."""
    recipe_a, recipe_b = a.spec.recipe, b.spec.recipe
    if recipe_a != recipe_b and RecipeClass.APPROXIMATE in (recipe_a.recipe_class, recipe_b.recipe_class):
        return Method.APPROXIMATE
    only_one = _quantized_types(a) ^ _quantized_types(b)
    if any(name.startswith("float8") for name in only_one):
        return Method.FP8
    if only_one:
        return Method.INT8
    if recipe_a.fp16_accumulation is not recipe_b.fp16_accumulation:
        return Method.FP16_ACCUMULATION
    return Method.LOSSLESS if _working_types(a) == _working_types(b) else Method.PRECISION


def _quantized_types(record: RunRecord) -> set[str]:
    found = {name for part in record.census for name in part.bytes_by_dtype}
    return {name for name in found if name == "int8" or name.startswith("float8")}


def _working_types(record: RunRecord) -> dict[str, str]:
    """The dtype that holds most of each component that makes the latents: the VAE comes after them."""
    return {
        part.component: max(part.bytes_by_dtype, key=lambda name: part.bytes_by_dtype[name])
        for part in record.census
        if part.component != "vae" and part.bytes_by_dtype
    }


def _checked(
    threshold: Threshold, latents: LatentSimilarity, frames: FrameSimilarity | None, frames_reason: str | None
) -> SimilarityCheck:
    observed, holds, reason = None, None, None
    if threshold.metric == "latents_cosine":
        observed, reason = latents.cosine, "the latents of one run are zero" if latents.cosine is None else None
    elif frames is None:
        reason = frames_reason
    elif frames.mean_squared_error == 0:
        holds, reason = True, "no frame differs"
    else:
        observed = frames.psnr_db
    if observed is not None:
        holds = observed >= threshold.at_least
    return SimilarityCheck(**threshold._asdict(), observed=observed, holds=holds, reason=reason)


def _verdict(
    method: Method, checks: Sequence[SimilarityCheck], *, weights_source: str
) -> tuple[VerdictValue, str | None]:
    missed = [check for check in checks if check.holds is False]
    if weights_source == "random":
        return VerdictValue.NOT_MEASURED, "the weights are random: the numbers show drift, and say nothing of quality"
    if not checks:
        return VerdictValue.NOT_MEASURED, f"no threshold is set for the method {method.value}"
    if missed:
        return VerdictValue.FAIL, "; ".join(
            f"{check.metric} is {check.observed:.5g}, at least {check.at_least:g} is asked" for check in missed
        )
    unknown = next((check for check in checks if check.holds is None), None)
    return (VerdictValue.PASS, None) if unknown is None else (VerdictValue.NOT_MEASURED, unknown.reason)
