"""What comes out: readings, profiles, stages, samples, verdicts, runs. Frozen, JSON-ready, missing is None."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wan22core.specs import BenchmarkSpec
from wan22core.targets import Severity

SCHEMA_VERSION = 1
T = TypeVar("T")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reading(_Record, Generic[T]):
    """A value with where it comes from, or None with the reason why there is none."""

    value: T | None
    """What was read."""
    source: str
    """The interface that was asked, e.g. ``nvml`` or ``/proc/cpuinfo``."""
    reason: str | None = None
    """Why there is no value."""

    @model_validator(mode="after")
    def _missing_has_a_reason(self) -> Self:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a reading has either a value or a reason for having none")
        return self

    @classmethod
    def missing(cls, source: str, reason: str) -> Self:
        """No value, and why."""
        return cls(value=None, source=source, reason=reason)


class CpuProfile(_Record):
    """The processors, and how much of them this process may use."""

    model: Reading[str]
    physical_cores: Reading[int]
    logical_cpus: Reading[int]
    usable_cpus: Reading[float]
    """By affinity and cgroup quota; may be fractional."""
    sockets: Reading[int]
    numa_nodes: Reading[int]
    affinity: Reading[list[int]]
    cgroup_quota_cpus: Reading[float]


class MemoryProfile(_Record):
    """Main memory in MiB."""

    total_mib: Reading[int]
    available_mib: Reading[int]
    cgroup_limit_mib: Reading[int]


class DiskProfile(_Record):
    """The disk of the data folder."""

    path: str
    total_mib: Reading[int]
    free_mib: Reading[int]
    filesystem: Reading[str]


class GpuProfile(_Record):
    """One GPU."""

    index: int
    name: Reading[str]
    uuid: Reading[str]
    vram_total_mib: Reading[int]
    vram_used_mib: Reading[int]
    compute_capability: Reading[str]
    driver: Reading[str]
    cuda: Reading[str]
    power_limit_w: Reading[float]
    temperature_c: Reading[float]
    mig: Reading[bool]
    pcie_generation: Reading[int]
    pcie_width: Reading[int]
    torch_index: Reading[int]
    """Index inside ``CUDA_VISIBLE_DEVICES``, as torch counts."""


class TorchDevice(_Record):
    """A CUDA device as torch sees it."""

    index: int
    """torch's own number, inside ``CUDA_VISIBLE_DEVICES``."""
    name: str
    uuid: str | None
    total_mib: int
    compute_capability: str


class TorchFacts(_Record):
    """What torch can use, asked in the worker."""

    version: str
    cuda_version: str | None
    """CUDA that torch was built with."""
    devices: list[TorchDevice]
    reason: str | None
    """Why there is no device, when there is none."""


class SoftwareProfile(_Record):
    """What the numbers depend on besides the hardware."""

    host: str
    operating_system: str
    kernel: str
    python: str
    packages: dict[str, Reading[str]]
    """Versions of torch, diffusers, transformers, prefect, great_expectations, wan22."""
    commit: Reading[str]
    """Git commit of the checkout that wan22 runs from."""


class HardwareProfile(_Record):
    """A truthful picture of this machine."""

    cpu: CpuProfile
    memory: MemoryProfile
    disk: DiskProfile
    gpus: list[GpuProfile]
    gpu_reason: str | None
    """Why there is no GPU in the list, when there is none."""
    software: SoftwareProfile
    detected_at: datetime


class Stage(StrEnum):
    """The stages of one run, in their order."""

    START = "start"
    LOAD = "load"
    QUANTIZE = "quantize"
    ENCODE = "encode"
    ENCODE_IMAGE = "encode_image"
    DENOISE = "denoise"
    SAVE_LATENTS = "save_latents"
    DECODE = "decode"
    WRITE = "write"
    GENERATE = "generate"
    """A user's own generator, seen from outside."""


class Progress(_Record):
    """How far a stage is; None where the stage has no such measure."""

    stage: str
    fraction: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    step: int | None = None
    steps: int | None = None


class LoadedComponent(_Record):
    """One component as an engine loaded it."""

    component: str
    wall_s: float
    """Reading, casting and placing, device synchronised."""
    bytes_read: int
    """Bytes of its files."""


class RepeatKind(StrEnum):
    """Warm-ups are data of another kind; they enter no statistic."""

    SETUP = "setup"
    WARMUP = "warmup"
    MEASURED = "measured"


class StageStatus(StrEnum):
    """How a stage ended."""

    OK = "ok"
    FAILED = "failed"
    NOT_RUN = "not_run"


class MemoryPeaks(_Record):
    """The four memory numbers and RSS of one stage, MiB; None on a device that has none of it."""

    peak_allocated_mib: float | None = None
    """Highest bytes handed out by torch's caching allocator."""
    peak_reserved_mib: float | None = None
    """Highest bytes the allocator held."""
    peak_process_mib: float | None = None
    """Larger of NVML's sampled maximum and ``max_reserved + (process - reserved)`` read at the stage's end."""
    peak_device_mib: float | None = None
    """Highest sampled use of the whole device."""
    peak_rss_mib: float | None = None
    """Highest sampled resident memory of the worker."""
    process_source: str | None = None
    """Where the process figure comes from: ``nvml``, or ``reserved+context`` where NVML gives none."""


class MemoryReading(_Record):
    """The four numbers read at one moment, MiB; allocated <= reserved <= process <= device must hold on it."""

    allocated_mib: float | None = None
    reserved_mib: float | None = None
    process_mib: float | None = None
    device_mib: float | None = None


class StageRecord(MemoryPeaks):
    """One stage of one repeat."""

    stage: Stage
    kind: RepeatKind
    repeat: int
    """Index within its kind, from 0."""
    component: str | None = None
    """``transformer``, ``text_encoder``, ``vae``...: set on the parts of a load; None on a whole stage."""
    status: StageStatus
    wall_s: float | None = None
    """Seconds by the worker's monotonic clock, device synchronised; None unless the stage ended well."""
    started_s: float | None = None
    """Start on the run's clock (the same as the samples' ``t_s``)."""
    ended_s: float | None = None
    step_times_s: list[float] = Field(default_factory=list)
    """Seconds of each denoising step."""
    bytes_read: int | None = None
    """Bytes of the files read by a load."""
    memory_end: MemoryReading = MemoryReading()
    """Simultaneous readings in the worker at the stage's end."""
    allocator_retries: int | None = None
    """Allocations that succeeded only after the cache was flushed."""
    frames_produced: int | None = None
    output_finite: bool | None = None
    output_constant: bool | None = None
    deadline_s: float | None = None
    attempt: int = 1
    resumed: bool = False
    samples: int | None = None
    """Telemetry samples taken during the stage."""
    achieved_rate_hz: float | None = None
    error_code: str | None = None
    """Code of the error that ended it."""
    error: str | None = None
    """What went wrong, one sentence."""


class Sample(_Record):
    """One telemetry sample; None where a source gave nothing."""

    t_s: float
    """Seconds since the run's clock started."""
    rss_mib: float | None = None
    cpu_percent: float | None = None
    """Of one core, the worker's process; 200 is two cores busy."""
    gpu_process_mib: float | None = None
    gpu_device_mib: float | None = None
    gpu_utilization_percent: float | None = None
    gpu_memory_utilization_percent: float | None = None
    gpu_temperature_c: float | None = None
    gpu_power_w: float | None = None
    gpu_sm_mhz: float | None = None
    gpu_memory_mhz: float | None = None
    gpu_throttle_reasons: int | None = None
    """NVML's bit mask."""
    gpu_energy_j: float | None = None
    """NVML's total-energy counter, joules since the driver was loaded."""


class WeightsRecord(_Record):
    """A checkpoint folder whose layout and headers were verified."""

    folder: str
    architecture: str
    source: Literal["random", "checkpoint"]
    weights_id: str
    """Stable identity of the files, part of the series."""
    transformer_bytes: int
    """Size of the transformer's files, which the quantization deadline is computed from."""
    made: bool
    """Whether this run had to make it."""


class Telemetry(_Record):
    """What the sampler did, and what follows from it."""

    requested_interval_s: float
    achieved_rate_hz: float | None
    """Samples per second over the whole run; None below two samples."""
    samples: int
    missed: int
    """Deadlines that passed without a sample."""
    energy_j: float | None
    energy_source: Literal["nvml_counter", "power_integral"] | None
    reasons: dict[str, str]
    """Why a quantity is missing, by field name."""


class Labels(_Record):
    """What every row carries, so that it can't be mistaken for another."""

    host: str
    operating_system: str
    device: str
    """``cpu`` or ``cuda:N``."""
    device_name: str | None
    device_uuid: str | None
    architecture: str
    weights_source: Literal["random", "checkpoint", "own"]
    """``own``: a user's own functions brought their model."""
    weights_id: str
    workload: str
    recipe: str
    recipe_class: str
    vram_limit_mib: int | None
    precision_requested: str
    precision_actual: str | None
    """From the census of what was loaded; None until then."""
    placement: str
    attention_backend: str | None
    page_cache: Literal["cold", "warm", "unknown"]
    compile_cache: Literal["none", "cold", "warm"]
    attempts: int
    resumed: bool
    fallback: bool
    emulated: bool
    foreign_process: bool | None
    """Another process used the GPU during the run; None where that can't be seen."""

    @property
    def comparable(self) -> bool:
        """Whether the row may enter baselines, trends and paired comparisons."""
        return self.attempts == 1 and not self.resumed and not self.fallback


class Census(_Record):
    """Evidence of what a component is made of, counted in the worker."""

    component: str
    parameters: int
    bytes_by_dtype: dict[str, int]
    """Bytes of parameters and buffers by torch dtype name."""
    devices: list[str]


class VerdictValue(StrEnum):
    """Three values: a limit met, missed, or nothing known."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    NOT_MEASURED = "not_measured"


class TargetVerdict(_Record):
    """One target, judged."""

    name: str
    metric: str
    comparison: str
    limit: float
    unit: str
    severity: Severity
    observed: float | None
    """The worst repeat."""
    median: float | None
    n: int
    """Repeats with a value."""
    verdict: VerdictValue
    reason: str | None
    """Why it was not measured, or what it missed by."""


class IntegrityFailure(_Record):
    """One expectation about the records that does not hold."""

    expectation: str
    """What should hold, as a sentence."""
    table: str
    column: str | None
    observed: str | None
    could_not_evaluate: bool
    """True when the expectation itself broke (wrong type, missing column)."""


class Integrity(_Record):
    """May these rows be believed?"""

    verdict: Literal["pass", "fail"]
    failed: list[IntegrityFailure]
    evaluated: int
    """Expectations that were evaluated."""


class Judgement(_Record):
    """Everything that was judged about a run."""

    integrity: Integrity
    targets: list[TargetVerdict]
    smoke_limits: list[TargetVerdict]


class RunState(StrEnum):
    """The state a run ends in, worst first."""

    INTEGRITY_FAILED = "IntegrityFailed"
    BROKEN = "Broken"
    TARGET_MISSED = "TargetMissed"
    NOT_MEASURED = "NotMeasured"
    PASS = "Pass"  # noqa: S105


GATE_EXIT_CODES: dict[RunState, int] = {
    RunState.PASS: 0,
    RunState.TARGET_MISSED: 1,
    RunState.NOT_MEASURED: 3,
    RunState.BROKEN: 4,
    RunState.INTEGRITY_FAILED: 5,
}


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
    generation_fps: float | None
    """Frames of the video by ``generation_s``."""
    memory_efficiency: float | None
    """Peak process memory by the physical card's memory."""
    frames_expected: int
    frames_produced: int | None
    output_finite: bool | None
    output_constant: bool | None
    achieved_rate_hz: float | None


class RunError(_Record):
    """What broke a run."""

    code: str
    message: str
    next: str
    stage: Stage | None
    log: str | None


class RunRecord(_Record):
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
    repeats: list[RepeatRow]
    stages: list[StageRecord]
    census: list[Census]
    telemetry: Telemetry
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
