"""What the stages of a run leave: times, memory, samples, labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from wan22core.records.base import Record


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


class CachedForwards(Record):
    """What a step cache left out of one denoise."""

    forwards: int
    """Of the transformer; with guidance a step has two."""
    cached: int
    """Of them, those that took the blocks' result from an earlier step."""


class Progress(Record):
    """How far a stage is; None where the stage has no such measure."""

    stage: str
    fraction: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    step: int | None = None
    steps: int | None = None


class LoadedComponent(Record):
    """One component as an engine loaded it."""

    component: str
    wall_s: float
    """Reading, casting and placing, device synchronised."""
    bytes_read: int
    """Bytes of its files."""


class Compilation(Record):
    """What compiling a model's code took, once a process."""

    seconds: float | None
    """What the first call took longer than the next; None where it failed."""
    cache: Literal["none", "cold", "warm"]
    """Whether an earlier process had left the code; ``none``: it could not be compiled, and runs as it is."""
    reason: str | None = None
    """Why it could not be compiled."""


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


class MemoryPeaks(Record):
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


class MemoryReading(Record):
    """The four numbers read at one moment, MiB; allocated <= reserved <= process <= device must hold on it."""

    allocated_mib: float | None = None
    reserved_mib: float | None = None
    process_mib: float | None = None
    device_mib: float | None = None


class Tile(Record):
    """The tiles that a VAE codes frames in, pixels.

    Neighbours meet in the middle of what they share; diffusers' own are blended there.
    """

    height: int
    width: int
    stride_height: int
    """From the top of one tile to the top of the next."""
    stride_width: int


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
    cached_fraction: float | None = None
    """Share of the checkpoint's bytes that the page cache held before a load; None where that can't be seen."""
    memory_end: MemoryReading = MemoryReading()
    """Simultaneous readings in the worker at the stage's end."""
    allocator_retries: int | None = None
    """Allocations that succeeded only after the cache was flushed."""
    frames_produced: int | None = None
    output_finite: bool | None = None
    output_constant: bool | None = None
    tile: Tile | None = None
    """Of the VAE's stages; None where it coded whole frames."""
    from_cache: bool = False
    """The result of an earlier run was read instead of computed."""
    compile_s: float | None = None
    """Seconds of ``wall_s`` that compiling took; None where nothing was compiled."""
    compile_cache: Literal["none", "cold", "warm"] | None = None
    """Of a stage that had something to compile: ``none`` where it could not be, and ran as it is."""
    forwards: int | None = None
    """Of the transformer in a denoise with a step cache; None without one."""
    cached_forwards: int | None = None
    """Of them, those that took the blocks' result from an earlier step."""
    prepared: bool = False
    """A quantization that found the transformer in int8 or fp8 already, as a prepared checkpoint holds it."""
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


class Sample(Record):
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
    gpu_temperature_margin_c: float | None = None
    """Below the highest temperature that the card may work at, by NVML; less than zero beyond it."""
    gpu_power_w: float | None = None
    gpu_sm_mhz: float | None = None
    gpu_memory_mhz: float | None = None
    gpu_throttle_reasons: int | None = None
    """NVML's bit mask."""
    gpu_energy_j: float | None = None
    """NVML's total-energy counter, joules since the driver was loaded."""


class WeightsRecord(Record):
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


class Telemetry(Record):
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


class Labels(Record):
    """What every row carries, so that it can't be mistaken for another."""

    host: str
    operating_system: str
    device: str
    """``cpu`` or ``cuda:N``."""
    device_name: str | None
    device_uuid: str | None
    architecture: str
    weights_source: Literal["random", "checkpoint", "own", "unknown"]
    """``own``: a user's own functions brought their model; ``unknown``: the run broke before its weights were seen."""
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

    embeddings_cached: bool = False
    """An encode was read from the cache: ``generation_s`` leaves it out."""
    thermally_throttled: bool | None = None
    """Heat made the GPU lower its clocks, or a temperature was critical; None where that can't be seen."""

    @property
    def comparable(self) -> bool:
        """Whether the row may enter baselines, trends and paired comparisons."""
        spoiled = self.resumed or self.fallback or self.thermally_throttled or self.embeddings_cached
        return self.attempts == 1 and not spoiled


class Census(Record):
    """Evidence of what a component is made of, counted in the worker."""

    component: str
    parameters: int
    bytes_by_dtype: dict[str, int]
    """Bytes of parameters and buffers by torch dtype name."""
    devices: list[str]
    prepared: bool = False
    """Its int8 or fp8 was read from the checkpoint as it is: nothing was quantized in this run."""
