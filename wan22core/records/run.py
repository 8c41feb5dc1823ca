"""One run, whole, and the keys that history sorts it by."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from wan22core.records.advice import Alert, AppliedSetting, Recommendation
from wan22core.records.base import Record
from wan22core.records.hardware import HardwareProfile
from wan22core.records.stages import Census, Labels, MemoryPeaks, RepeatKind, Stage, StageRecord, Telemetry
from wan22core.records.verdicts import Integrity, RegressionVerdict, RunState, TargetVerdict
from wan22core.specs import BenchmarkSpec


class RepeatRow(MemoryPeaks):
    """One repeat as the ``runs`` table holds it: the judged metrics."""

    kind: RepeatKind
    repeat: int
    load_s: float | None
    """Reading, casting, quantizing and placing every component."""
    generation_s: float | None
    """Encode + denoise + decode + writing the video."""
    start_to_video_s: float | None
    """Process start to the verified file; None but for the first generation of a process."""
    step_median_s: float | None
    """None with a step cache: steps that are computed and steps that are not have no middle."""
    generation_fps: float | None
    """Frames of the video by ``generation_s``."""
    memory_efficiency: float | None
    """Peak process memory by the physical card's memory."""
    frames_expected: int
    frames_produced: int | None
    output_finite: bool | None
    output_constant: bool | None
    achieved_rate_hz: float | None


class RunError(Record):
    """What broke a run."""

    code: str
    message: str
    next: str
    stage: Stage | None
    log: str | None


class RunRecord(Record):
    """One run, whole: the document behind ``--json`` and ``run.json``."""

    schema_version: Literal[1] = 1
    run_id: str
    created_at: datetime
    run_dir: str
    command: str
    """How to run it again."""
    verdict: RunState
    summary: str
    """The verdict in one sentence."""
    spec: BenchmarkSpec
    labels: Labels
    series_key: str
    environment_key: str
    environment: dict[str, str | None]
    hardware: HardwareProfile
    integrity: Integrity
    targets: list[TargetVerdict]
    smoke_limits: list[TargetVerdict]
    regressions: list[RegressionVerdict] = Field(default_factory=list)
    """Beside a baseline, where a gate named one."""
    repeats: list[RepeatRow]
    stages: list[StageRecord]
    census: list[Census]
    telemetry: Telemetry
    settings: list[AppliedSetting] = Field(default_factory=list)
    """Host settings that were asked for, as they were read back; none where the host was left as it is."""
    alerts: list[Alert] = Field(default_factory=list)
    """What crossed a threshold of health while it ran."""
    recommendations: list[Recommendation] = Field(default_factory=list)
    """What to change, the largest expected gain first."""
    remarks: list[str] = Field(default_factory=list)
    """What made the run another one than its recipe says, a sentence each."""
    error: RunError | None
    files: dict[str, str]
    """Files of the run folder by what they are."""


def series_key(labels: Labels) -> str:
    """Identity of what is measured: host, GPU, weights, architecture, workload, recipe, ceiling, operating system."""
    return _digest(
        {
            "host": labels.host,
            "device_name": labels.device_name,
            "device_uuid": labels.device_uuid,
            "weights": labels.weights_id,
            "architecture": labels.architecture,
            "workload": labels.workload,
            "recipe": labels.recipe,
            "vram_limit_mib": labels.vram_limit_mib,
            "operating_system": labels.operating_system,
        }
    )


def environment_key(environment: dict[str, str | None]) -> str:
    """Identity of what may change under a series: driver, CUDA, torch, diffusers, settings, commit."""
    return _digest(environment)


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
