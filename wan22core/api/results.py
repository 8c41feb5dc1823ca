"""What a benchmark of own functions found: numbers or reasons, verdicts, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from wan22core.api.declared import OWN, HardwareProfile
from wan22core.files import write_text
from wan22core.quality.policy import run_state
from wan22core.records import (
    GpuProfile,
    Integrity,
    Judgement,
    RepeatKind,
    RepeatRow,
    RunError,
    RunRecord,
    RunState,
    Stage,
    StageRecord,
    TargetVerdict,
    VerdictValue,
)
from wan22core.records import HardwareProfile as DetectedHardware
from wan22core.session import assemble
from wan22core.session.folder import RunFolder
from wan22core.specs import BenchmarkSpec, Workload
from wan22core.statistics import summarize
from wan22core.targets import Metric, Target

MeasuredIn = Literal["process", "worker"]
DOCUMENT = "benchmark.json"
_NO_DEVICE_MEMORY = "nothing that was measured had torch loaded with a CUDA device before the stage began"


@dataclass(frozen=True)
class Measured:
    """What one measuring brought, wherever it ran."""

    measured_in: MeasuredIn
    spec: BenchmarkSpec
    folder: RunFolder
    device: str
    """``cpu`` or ``cuda:N``: the torch device whose memory was read."""
    hardware: DetectedHardware
    stages: list[StageRecord]
    error: RunError | None
    record: RunRecord | None
    """The judged run, when the worker made a video."""

    @property
    def gpu(self) -> GpuProfile | None:
        return self.hardware.gpu_of(self.device)


class BenchmarkResult(BaseModel):
    """One benchmark of a user's own functions; a missing number is None, and ``reasons`` says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    benchmark: str
    """The method that made it."""
    loader: str
    """Name of the loader."""
    generator: str | None
    """Name of the generator; None where only loading was measured."""
    measured_in: MeasuredIn
    """``worker``: a fresh process with hard deadlines. ``process``: the caller's own, with all else that it holds."""
    device: str
    """``cpu`` or ``cuda:N``: the torch device whose memory was read."""
    workload: Workload
    """The video that was asked for."""
    load_s: float | None
    """Seconds of the loader; the longest where it ran again after a worker's death."""
    generation_s: float | None
    """Seconds of the generator and of writing the video; the slowest repeat."""
    generation_fps: float | None
    """Frames of the video by ``generation_s``; the slowest repeat."""
    peak_process_mib: float | None
    """Highest device memory of the process, loading included."""
    memory_efficiency: float | None
    """``peak_process_mib`` by the physical card's memory."""
    peak_rss_mib: float | None
    """Highest sampled resident memory of the process, loading included."""
    reasons: dict[str, str]
    """Why a number is None, by its name."""
    targets: list[TargetVerdict]
    """The limits of this benchmark, judged on the worst repeat."""
    verdict: RunState
    """As a gate would have it; warnings never change it."""
    summary: str
    """The verdict in one sentence."""
    integrity: Integrity | None
    """May the records be believed? None where the suite did not run: in the caller's process, or without a video."""
    error: RunError | None
    """What broke the benchmark."""
    repeats: list[RepeatRow]
    stages: list[StageRecord]
    declared_hardware: HardwareProfile | None
    hardware: DetectedHardware
    """The machine as it was detected; only this enters numbers."""
    hardware_differences: list[str]
    """What the declared profile says otherwise, or what could not be checked."""
    run_dir: str
    """Folder with ``benchmark.json``, the video, and the full report where the worker made one."""

    def save(self, path: str | Path) -> Path:
        """Writes the result as JSON, all or nothing; raises ``StorageError`` or ``InsufficientDiskSpaceError``."""
        target = Path(path)
        write_text(target, self.model_dump_json(indent=2) + "\n")
        return target


class VramComparison(BaseModel):
    """Device memory before and after an optimization."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: BenchmarkResult
    optimized: BenchmarkResult | None
    """None where no optimized loader was given."""
    saved_mib: float | None
    """Peak of the baseline less the optimized peak; negative when it takes more."""
    saved_ratio: float | None
    """``saved_mib`` by the baseline's peak."""
    reason: str | None
    """Why no saving is known."""

    @classmethod
    def of(cls, baseline: BenchmarkResult, optimized: BenchmarkResult | None) -> VramComparison:
        """Compares peaks of fresh processes only: in one process the first run's memory is still held in the second."""
        before = baseline.peak_process_mib
        after = optimized.peak_process_mib if optimized is not None else None
        saved = ratio = reason = None
        if optimized is None:
            reason = "no optimized loader was given"
        elif "process" in (baseline.measured_in, optimized.measured_in):
            reason = "before and after need fresh processes: give the functions as module:function"
        elif before is None:
            reason = f"baseline: {baseline.reasons['peak_process_mib']}"
        elif after is None:
            reason = f"optimized: {optimized.reasons['peak_process_mib']}"
        else:
            saved, ratio = before - after, (before - after) / before
        return cls(baseline=baseline, optimized=optimized, saved_mib=saved, saved_ratio=ratio, reason=reason)


def result_of(
    benchmark: str, names: tuple[str, str | None], measured: Measured, declared: HardwareProfile | None
) -> BenchmarkResult:
    """Numbers, verdicts and the sentence of one measuring; pure."""
    gpu, spec = measured.gpu, measured.spec
    rows = assemble.repeat_rows(spec, measured.stages, gpu.vram_total_mib.value if gpu else None)
    values = metric_values(measured.stages, rows)
    reasons = {metric: _why_missing(metric, measured, names[1]) for metric in values}
    worst = {metric: _worst(metric, found) for metric, found in values.items()}
    targets, state, integrity = _judged(measured, values, reasons)
    return BenchmarkResult(
        benchmark=benchmark,
        loader=names[0],
        generator=names[1],
        measured_in=measured.measured_in,
        device=measured.device,
        workload=spec.workload,
        load_s=worst["load_s"],
        generation_s=worst["generation_s"],
        generation_fps=worst["generation_fps"],
        peak_process_mib=worst["peak_process_mib"],
        memory_efficiency=worst["memory_efficiency"],
        peak_rss_mib=worst["peak_rss_mib"],
        reasons={metric: reasons[metric] for metric, value in worst.items() if value is None},
        targets=targets,
        verdict=state,
        summary=_sentence(state, targets, integrity, measured.error),
        integrity=integrity,
        error=measured.error,
        repeats=rows,
        stages=measured.stages,
        declared_hardware=declared,
        hardware=measured.hardware,
        hardware_differences=declared.differences(measured.hardware, gpu) if declared is not None else [],
        run_dir=str(measured.folder.path),
    )


def _judged(
    measured: Measured, values: dict[Metric, list[float | None]], reasons: dict[Metric, str]
) -> tuple[list[TargetVerdict], RunState, Integrity | None]:
    """The session's verdicts where it judged, else each target by itself."""
    if measured.record is not None:
        return measured.record.targets, measured.record.verdict, measured.record.integrity
    workload = measured.spec.workload
    targets = [judge(each, workload, values[each.metric], reasons[each.metric]) for each in measured.spec.targets]
    return targets, _state(targets, measured.error), None


def metric_values(stages: list[StageRecord], rows: list[RepeatRow]) -> dict[Metric, list[float | None]]:
    """Every judged metric, one value a measured repeat; of a benchmark without a video what loading alone shows."""
    measured = [row for row in rows if row.kind is RepeatKind.MEASURED]
    loads = [stage.wall_s for stage in stages if stage.stage is Stage.LOAD and stage.component is None]
    loading = assemble.merge_peaks(stages)
    return {
        "load_s": list(loads),
        "generation_s": [row.generation_s for row in measured],
        "generation_fps": [row.generation_fps for row in measured],
        "peak_process_mib": [row.peak_process_mib for row in measured] or [loading.peak_process_mib],
        "memory_efficiency": [row.memory_efficiency for row in measured],
        "peak_rss_mib": [row.peak_rss_mib for row in measured] or [loading.peak_rss_mib],
    }


def judge(target: Target, workload: Workload, values: list[float | None], missing_reason: str) -> TargetVerdict:
    """One target on the worst of ``values``; a missing one, or another workload, is not measured."""
    summary = summarize(values)
    observed = summary.minimum if target.comparison == ">=" else summary.maximum
    verdict, reason = VerdictValue.NOT_MEASURED, None
    if target.workload != workload.name:
        reason = f"asserted for {target.about}, this is {OWN} {workload.name}"
    elif observed is None or summary.n < len(values):
        reason = f"{target.metric} was not measured: {missing_reason}"
    elif target.holds(observed):
        verdict = VerdictValue.PASS
    else:
        verdict = VerdictValue.FAIL
        reason = f"missed by {abs(observed - target.limit):.4g} {target.unit}"
    return TargetVerdict(
        **target.model_dump(include={"name", "metric", "comparison", "limit", "unit", "severity"}),
        observed=observed,
        median=summary.median,
        n=summary.n,
        verdict=verdict,
        reason=reason,
    )


def _worst(metric: Metric, values: list[float | None]) -> float | None:
    """None as soon as one repeat has no value: the rest would look better than the whole."""
    summary = summarize(values)
    if summary.n < len(values):
        return None
    return summary.minimum if metric == "generation_fps" else summary.maximum


def _why_missing(metric: Metric, measured: Measured, generator: str | None) -> str:
    if measured.error is not None:
        return measured.error.message
    if metric in ("generation_s", "generation_fps", "memory_efficiency") and generator is None:
        return "no video was generated"
    if metric in ("peak_process_mib", "memory_efficiency"):
        return _NO_DEVICE_MEMORY if measured.gpu is None else "the driver gave no figure for this process"
    return "no sample was taken"


def _state(targets: list[TargetVerdict], error: RunError | None) -> RunState:
    # nothing was evaluated, so nothing can have failed: the state follows from the error and the targets alone
    integrity = Integrity(verdict="pass", failed=[], evaluated=0)
    return run_state(Judgement(integrity=integrity, targets=targets, smoke_limits=[]), error)


def _sentence(
    state: RunState, targets: list[TargetVerdict], integrity: Integrity | None, error: RunError | None
) -> str:
    if state is RunState.INTEGRITY_FAILED and integrity is not None:
        return f"The records can't be believed: it does not hold that {integrity.failed[0].expectation}."
    if error is not None:
        return f"The benchmark broke: {error.message}"
    counted = {value: sum(target.verdict is value for target in targets) for value in VerdictValue}
    return (
        f"Of {len(targets)} targets {counted[VerdictValue.PASS]} are met, {counted[VerdictValue.FAIL]} missed "
        f"and {counted[VerdictValue.NOT_MEASURED]} not measured."
    )
