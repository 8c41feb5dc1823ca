"""Quantization strategies: each one really applied to ``tiny`` in a child, and read back by counting bytes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from wan22core.recipes import reference
from wan22core.records import Census, Stage, StageRecord, StageStatus
from wan22core.session.folder import RunFolder
from wan22core.session.labels import actual_precision
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.session.weights import prepare_weights
from wan22core.specs import WORKLOADS, BenchmarkSpec, Precision, Weights
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, equal, one_of
from wan22core.validation.registry import Check

_CASTS = {Precision.FP16: "float16", Precision.BF16: "bfloat16", Precision.FP32: "float32", Precision.NONE: "float32"}
"""What holds most bytes of the transformer then; the files of ``tiny`` are float32, as those of the hub."""
_EIGHT_BIT = {Precision.FP8: ("float8_e4m3fn", "float8_e5m2"), Precision.INT8: ("int8",)}
_CHAIN = (Precision.FP8, Precision.INT8, Precision.BF16)
_REFUSED = "UNSUPPORTED_QUANTIZATION"


def _spec(precision: Precision, *, fallbacks: tuple[Precision, ...] = ()) -> BenchmarkSpec:
    changed = {"transformer_precision": precision, "fallbacks": fallbacks}
    return BenchmarkSpec(workload=WORKLOADS["smoke"], recipe=reference().model_copy(update=changed))


def _loaded(case: Case, precisions: Iterable[Precision]) -> list[dict[str, Any]]:
    """What the engine made of ``tiny`` under each precision, on the CPU: a census, or its refusal."""
    context = case.context
    case.look_at("tiny on this machine's CPU")
    weights = prepare_weights(Weights(model="tiny"), context.settings, context.log_path)
    specs = [_spec(each).model_dump(mode="json") for each in precisions]
    arguments = {"specs": specs, "checkpoint": weights.folder, "device": "cpu"}
    found: list[dict[str, Any]] = case.job("wan22core.worker.exercise:precisions_job", arguments)["rows"]
    return found


def _dtype(row: dict[str, Any]) -> str | None:
    return actual_precision([Census.model_validate(part) for part in row["census"] or []])


def _casts(case: Case) -> None:
    rows = dict(zip(_CASTS, _loaded(case, _CASTS), strict=True))
    for precision, dtype in _CASTS.items():
        case.expect(f"transformer under {precision.value}, by bytes", equal(dtype), _dtype(rows[precision]))
    for precision, row in rows.items():
        parts = [Census.model_validate(part) for part in row["census"] or []]
        devices = sorted({device for part in parts for device in part.devices})
        case.expect(f"devices under {precision.value}", equal(["cpu"]), devices)


def _eight_bit(case: Case) -> None:
    rows = dict(zip(_EIGHT_BIT, _loaded(case, _EIGHT_BIT), strict=True))
    for precision, dtypes in _EIGHT_BIT.items():
        if rows[precision]["refused"] is None:
            case.expect(f"transformer under {precision.value}, by bytes", one_of(dtypes), _dtype(rows[precision]))
    refused = [f"{each.value}: {row['refused']}" for each, row in rows.items() if row["refused"] is not None]
    if refused:
        case.not_measured(" ".join(refused), "Use another precision on this device.")


def _fallback(case: Case) -> None:
    """The session's own load: each attempt from clean weights in a worker of its own."""
    context = case.context
    case.look_at("tiny on this machine")
    spec = _spec(_CHAIN[0], fallbacks=_CHAIN[1:])
    path: Path = context.folder / "fallback"
    path.mkdir(parents=True)
    recording = Recording.new(RunFolder(context.id, path), spec, "wan22 validate", interval_s=1.0)
    with BenchmarkSession(recording, context.settings) as session:
        session.spawn_worker()
        session.detect_hardware()
        session.prepare_weights()
        tried = [attempt.precision for attempt in session.set_up_quantization().attempts]
        stages = [each for each in session.load_model() if each.component is None]
        ended = actual_precision(session.worker.census)
        case.expect("error of the run", equal("none"), session.error.message if session.error is not None else "none")
    _judge_chain(case, tried, [each for each in stages if each.stage is Stage.QUANTIZE], ended)


def _judge_chain(case: Case, tried: list[Precision], attempts: list[StageRecord], ended: str | None) -> None:
    """All attempts but the last were refused by name; what is left is what the last one was to make."""
    case.expect("attempts", at_least(1), len(attempts))
    for each, precision in zip(attempts[:-1], tried, strict=False):
        case.expect(f"{precision.value} is refused", equal(_REFUSED), each.error_code)
    if not attempts:
        return
    last = tried[min(len(attempts), len(tried)) - 1]
    case.expect(f"{last.value} ends the chain", equal(StageStatus.OK), attempts[-1].status)
    case.expect("transformer at its end, by bytes", one_of(_EIGHT_BIT.get(last, (_CASTS.get(last),))), ended)


_check = partial(
    Check,
    category="rtx_4080",
    behaviour="quantization strategies",
    advice="Look at the engine's load and quantize, and at the census in the observations.",
)

CHECKS = (
    _check("rtx_4080.quantization_casts", title="Working precisions are in force", run=_casts),
    _check("rtx_4080.quantization_8bit", title="fp8 and int8 are in force", run=_eight_bit),
    _check("rtx_4080.quantization_fallback", title="The first supported of fp8, int8, bf16 is in force", run=_fallback),
)
