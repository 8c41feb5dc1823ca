"""Where a resumed run is among the ways that its recipe allows."""

from __future__ import annotations

import pytest

from wan22core.planning.quantization import plan_quantization
from wan22core.recipes import recipe
from wan22core.records import RepeatKind, Stage, StageRecord, StageStatus
from wan22core.session.attempts import Attempts
from wan22core.specs import WORKLOADS, BenchmarkSpec, Placement, Precision

SPEC = BenchmarkSpec(workload=WORKLOADS["smoke"], recipe=recipe("safe_12g"))


def record(stage: Stage, attempt: int, code: str | None = None, kind: RepeatKind = RepeatKind.SETUP) -> StageRecord:
    status = StageStatus.OK if code is None else StageStatus.FAILED
    return StageRecord(stage=stage, kind=kind, repeat=0, status=status, attempt=attempt, error_code=code, error=code)


FP8_FAILED = [record(Stage.LOAD, 1), record(Stage.QUANTIZE, 1, "TIMEOUT")]
INT8 = [record(Stage.LOAD, 2), record(Stage.QUANTIZE, 2)]
MEMORY = record(Stage.DENOISE, 1, "CUDA_OUT_OF_MEMORY", RepeatKind.MEASURED)
STREAMED = [record(Stage.LOAD, 3), record(Stage.QUANTIZE, 3)]
DECODE = record(Stage.DECODE, 1, "CUDA_OUT_OF_MEMORY", RepeatKind.MEASURED)


@pytest.mark.parametrize(
    ("earlier", "precision", "placement", "number"),
    [
        ([], Precision.FP8, Placement.ENCODE_THEN_FREE, 1),
        ([record(Stage.LOAD, 1), record(Stage.QUANTIZE, 1)], Precision.FP8, Placement.ENCODE_THEN_FREE, 1),
        (FP8_FAILED, Precision.FP8, Placement.ENCODE_THEN_FREE, 1),
        ([*FP8_FAILED, *INT8], Precision.INT8, Placement.ENCODE_THEN_FREE, 2),
        ([*FP8_FAILED, *INT8, DECODE], Precision.INT8, Placement.ENCODE_THEN_FREE, 2),
        ([*FP8_FAILED, *INT8, MEMORY, *STREAMED], Precision.INT8, Placement.BLOCK_STREAM, 3),
    ],
    ids=["new run", "nothing failed", "killed before a way was found", "fp8 gave way", "smaller tiles", "streamed"],
)
def test_a_resumed_run_stays_on_its_way(
    earlier: list[StageRecord], precision: Precision, placement: Placement, number: int
) -> None:
    """Its videos are all of one precision and one placement."""
    attempts = Attempts(plan_quantization(SPEC, 18.6), SPEC.recipe)
    attempts.follow(earlier)
    active = attempts.applied_to(SPEC).recipe
    assert (active.transformer_precision, active.placement, attempts.number) == (precision, placement, number)
