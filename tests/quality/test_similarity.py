"""The guard on two runs' outputs: which method it is, what holds, and what is not claimed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_labels, make_run_record
from wan22core.quality.similarity import explained_cosine, judge_similarity, method_of
from wan22core.records import Census, FrameSimilarity, LatentSimilarity, Method, RunRecord, VerdictValue
from wan22core.targets import RecipeClass


def a_run(dtype: str = "bfloat16", *, weights: str = "checkpoint", **recipe: Any) -> RunRecord:
    """A run whose transformer is of ``dtype``, with a recipe that was changed."""
    record = make_run_record(labels=make_labels(weights_source=weights))
    spec = record.spec.model_copy(update={"recipe": record.spec.recipe.model_copy(update=recipe)})
    parts = {"transformer": {dtype: 1000, "float32": 10}, "text_encoder": {"bfloat16": 900}, "vae": {"float32": 100}}
    census = [
        Census(component=name, parameters=1, bytes_by_dtype=held, devices=["cpu"]) for name, held in parts.items()
    ]
    return record.model_copy(update={"spec": spec, "census": census})


def latents(cosine: float | None) -> LatentSimilarity:
    return LatentSimilarity(values=8, bit_equal=cosine == 1, cosine=cosine, relative_l2_error=0.1)


def frames(psnr_db: float | None) -> FrameSimilarity:
    return FrameSimilarity(
        frames=5, equal_frames=0 if psnr_db else 5, mean_squared_error=1.0 if psnr_db else 0.0, psnr_db=psnr_db,
        worst_frame_psnr_db=psnr_db, ssim=0.9, worst_frame_ssim=0.8, temporal_error=1.0, temporal_change=2.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "method"),
    [
        (a_run(), a_run(), Method.LOSSLESS),
        (a_run(), a_run(vae_tiling=True, vae_precision="bf16"), Method.LOSSLESS),
        (a_run(), a_run("float8_e4m3fn"), Method.FP8),
        (a_run(), a_run("int8"), Method.INT8),
        (a_run("int8"), a_run("int8", vae_tiling=True), Method.LOSSLESS),
        (a_run(), a_run(transformer_precision="int8"), Method.LOSSLESS),
        (a_run(), a_run("float16"), Method.PRECISION),
        (a_run(), a_run(fp16_accumulation=True), Method.FP16_ACCUMULATION),
        (a_run(), a_run(recipe_class=RecipeClass.APPROXIMATE), Method.APPROXIMATE),
    ],
)
def test_the_method_is_what_was_run(a: RunRecord, b: RunRecord, method: Method) -> None:
    """Read off the census: int8 that was asked for and fell back to bf16 is no quantization."""
    assert (method_of(a, b), method_of(b, a)) == (method, method)


@pytest.mark.parametrize(
    ("cosine", "psnr_db", "verdict", "words"),
    [
        (0.9999, 40.0, VerdictValue.PASS, None),
        (1.0, None, VerdictValue.PASS, None),
        (0.9998, 60.0, VerdictValue.FAIL, "latents_cosine is 0.9998, at least 0.9999 is asked"),
        (1.0, 39.9, VerdictValue.FAIL, "psnr_db is 39.9, at least 40 is asked"),
        (None, 40.0, VerdictValue.NOT_MEASURED, "the latents of one run are zero"),
    ],
)
def test_a_lossless_recipe_keeps_latents_and_frames(
    cosine: float | None, psnr_db: float | None, verdict: VerdictValue, words: str | None
) -> None:
    """At the threshold it holds; frames that do not differ hold without a number."""
    found = judge_similarity(a_run(), a_run(), latents(cosine), frames(psnr_db), None)
    assert (found.verdict, found.reason) == (verdict, words)


def test_without_frames_a_lossless_recipe_is_not_known_to_hold() -> None:
    """A decode could have gone wrong; latents that are off fail all the same."""
    found = judge_similarity(a_run(), a_run(), latents(1.0), None, "no frames were kept")
    assert (found.verdict, found.reason) == (VerdictValue.NOT_MEASURED, "no frames were kept")
    assert judge_similarity(a_run(), a_run(), latents(0.5), None, "none").verdict is VerdictValue.FAIL


def test_random_weights_claim_no_quality() -> None:
    """Whatever the numbers are: they are shown with what they hold of, and the verdict stays open."""
    for cosine in (1.0, 0.1):
        b = a_run(weights="random")
        found = judge_similarity(a_run(weights="random"), b, latents(cosine), frames(50), None)
        assert (found.verdict, found.checks[0].holds) == (VerdictValue.NOT_MEASURED, cosine == 1.0)
        assert found.reason is not None and "weights are random" in found.reason


def test_a_method_without_a_threshold_claims_nothing() -> None:
    found = judge_similarity(a_run(), a_run(fp16_accumulation=True), latents(1.0), frames(None), None)
    assert (found.verdict, found.checks) == (VerdictValue.NOT_MEASURED, [])
    assert found.reason == "no threshold is set for the method fp16_accumulation"


def test_a_quantized_recipe_is_held_to_what_its_error_explains() -> None:
    """0.043 a forward x sqrt(2) x sqrt(41) is an error of 0.389 at most, a cosine of 0.932."""
    assert explained_cosine(0.043) == pytest.approx(0.9319, abs=1e-4)
    assert explained_cosine(0.0) == 1.0
    for dtype in ("int8", "float8_e4m3fn"):
        assert judge_similarity(a_run(), a_run(dtype), latents(0.94), None, "none").verdict is VerdictValue.PASS
        assert judge_similarity(a_run(), a_run(dtype), latents(0.92), None, "none").verdict is VerdictValue.FAIL
