"""What a caller declares: the machine as they know it, and the limits that they want held."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from wan22core.records import GpuProfile, Reading
from wan22core.records import HardwareProfile as DetectedHardware
from wan22core.targets import TARGETS, Metric, RecipeClass, Target

OWN = "own"
"""The architecture of a user's own functions: nothing is known about what is inside them."""

_SIZE_TOLERANCE = 0.1  # firmware and drivers keep some of the memory that is printed on the box


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HardwareProfile(_Declared):
    """A machine as its owner describes it. It is compared with what is detected and enters no number."""

    cpu_model: str
    """Name of the processor; words that the detected name has too, in any order."""
    cpu_cores: int = Field(gt=0)
    """Physical cores."""
    total_memory_gb: float = Field(gt=0)
    """Main memory, GiB."""
    gpu_model: str
    """Name of the GPU."""
    vram_gb: float = Field(gt=0)
    """Memory of the GPU, GiB."""
    is_rtx_4080: bool = False
    """Whether the GPU is a GeForce RTX 4080."""
    is_threadripper_pro: bool = False
    """Whether the processor is a Threadripper PRO."""

    def differences(self, detected: DetectedHardware, gpu: GpuProfile | None) -> list[str]:
        """One sentence for each statement that the detected machine contradicts, or that could not be checked."""
        gpu = gpu or next(iter(detected.gpus), None)
        no_gpu = Reading[str].missing("nvml", detected.gpu_reason or "no GPU was found")
        gpu_name = gpu.name if gpu else no_gpu
        vram = gpu.vram_total_mib if gpu else Reading[int].missing(no_gpu.source, str(no_gpu.reason))
        cpu = detected.cpu
        found = [
            _differs("cpu_model", self.cpu_model, cpu.model, _same_name(self.cpu_model, cpu.model.value)),
            _differs("cpu_cores", self.cpu_cores, cpu.physical_cores, self.cpu_cores == cpu.physical_cores.value),
            _size_differs("total_memory_gb", self.total_memory_gb, detected.memory.total_mib),
            _differs("gpu_model", self.gpu_model, gpu_name, _same_name(self.gpu_model, gpu_name.value)),
            _size_differs("vram_gb", self.vram_gb, vram),
            _differs("is_rtx_4080", self.is_rtx_4080, gpu_name, self.is_rtx_4080 == _is("RTX 4080", gpu_name)),
            _differs(
                "is_threadripper_pro",
                self.is_threadripper_pro,
                cpu.model,
                self.is_threadripper_pro == _is("Threadripper PRO", cpu.model),
            ),
        ]
        return [sentence for sentence in found if sentence is not None]


def _differs(name: str, declared: object, reading: Reading[str] | Reading[int], agrees: bool) -> str | None:
    if reading.value is None:
        return f"{name} is declared as {declared} and could not be checked: {reading.reason}."
    return None if agrees else f"{name} is declared as {declared}, and {reading.source} says {reading.value}."


def _size_differs(name: str, declared_gib: float, reading: Reading[int]) -> str | None:
    if reading.value is None:
        return f"{name} is declared as {declared_gib:g} and could not be checked: {reading.reason}."
    detected_gib = reading.value / 1024
    if abs(detected_gib - declared_gib) <= _SIZE_TOLERANCE * declared_gib:
        return None
    return f"{name} is declared as {declared_gib:g}, and {reading.source} says {detected_gib:.1f} GiB."


def _same_name(declared: str, detected: str | None) -> bool:
    return detected is not None and set(declared.casefold().split()) <= set(detected.casefold().split())


def _is(words: str, reading: Reading[str]) -> bool:
    return _same_name(words, reading.value)


class TI2VBenchmarkTargets(_Declared):
    """The five limits of the original. How they compare and how much they matter is that of ``targets.TARGETS``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model_load_time_max: float = Field(default=300.0, gt=0)
    """Seconds that loading must stay below."""
    video_2s_generation_max: float = Field(default=120.0, gt=0)
    """Seconds that a 2-second video must stay below."""
    vram_usage_max_mb: int = Field(default=12_288, gt=0)
    """MiB that the process's device memory must stay below (the name is the original's)."""
    target_generation_fps: float = Field(default=0.5, gt=0)
    """Frames of the video by the seconds of its generation, at least."""
    memory_efficiency_target: float = Field(default=0.85, gt=0)
    """Peak device memory by the physical card's, at most."""

    def as_targets(self, metrics: tuple[Metric, ...], workload: str) -> tuple[Target, ...]:
        """The targets on ``metrics`` with these limits, asserted for the caller's own functions.

        The four that depend on the video stay asserted for the workload they are about; loading is the same for all.
        No device is demanded: which one a function uses is its own business, and what it used is measured or None.
        """
        limits: dict[Metric, float] = {
            "load_s": self.model_load_time_max,
            "generation_s": self.video_2s_generation_max,
            "peak_process_mib": self.vram_usage_max_mb,
            "generation_fps": self.target_generation_fps,
            "memory_efficiency": self.memory_efficiency_target,
        }
        return tuple(
            target.model_copy(
                update={
                    "limit": float(limits[target.metric]),
                    "architecture": OWN,
                    "workload": workload if target.metric == "load_s" else target.workload,
                    "recipe_classes": tuple(RecipeClass),
                    "requires_cuda": False,
                }
            )
            for target in TARGETS
            if target.metric in metrics
        )
