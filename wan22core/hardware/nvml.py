"""NVIDIA's management library: the one file that talks to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from wan22core.records import GpuProfile, Reading, TorchFacts

_MIB = 2**20
_SOURCE = "nvml"
_NOT_ASKED = "torch was not asked"
T = TypeVar("T")


class GpuReading(BaseModel):
    """One look at a GPU; None where NVML gave nothing (the reader's ``reasons`` say why)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_process_mib: float | None = None
    gpu_device_mib: float | None = None
    gpu_utilization_percent: float | None = None
    gpu_memory_utilization_percent: float | None = None
    gpu_temperature_c: float | None = None
    gpu_power_w: float | None = None
    gpu_sm_mhz: float | None = None
    gpu_memory_mhz: float | None = None
    gpu_throttle_reasons: int | None = None
    gpu_energy_j: float | None = None
    processes: tuple[int, ...] = Field(default=(), exclude=True)
    """Process ids that hold a compute context."""


class GpuProbe(Protocol):
    """What the sampler asks for a GPU's state: the real reader, or a replayed trace."""

    reasons: dict[str, str]
    """Why a quantity is missing, by field name."""

    def read(self, pid: int | None) -> GpuReading:
        """The state now; ``gpu_process_mib`` is that of ``pid``."""


class GpuReader:
    """One GPU of this machine through NVML; cheap enough for ten reads a second."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._nvml.nvmlInit()
        self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        self.reasons: dict[str, str] = {}

    def read(self, pid: int | None) -> GpuReading:
        """The state now. The compute list alone is read: a process may stand in the graphics list as well."""
        nvml, handle = self._nvml, self._handle
        memory = self._ask("gpu_device_mib", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        use = self._ask("gpu_utilization_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        running = self._ask("gpu_process_mib", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        power = self._ask("gpu_power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        energy = self._ask("gpu_energy_j", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        return GpuReading(
            gpu_process_mib=self._process_mib(running or [], pid),
            gpu_device_mib=None if memory is None else memory.used / _MIB,
            gpu_utilization_percent=None if use is None else use.gpu,
            gpu_memory_utilization_percent=None if use is None else use.memory,
            gpu_temperature_c=self._ask(
                "gpu_temperature_c", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            gpu_power_w=None if power is None else power / 1000,
            gpu_sm_mhz=self._ask("gpu_sm_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            gpu_memory_mhz=self._ask(
                "gpu_memory_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            gpu_throttle_reasons=self._ask(
                "gpu_throttle_reasons", lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            ),
            gpu_energy_j=None if energy is None else energy / 1000,
            processes=tuple(process.pid for process in running or []),
        )

    def _ask(self, field: str, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError as error:
            self.reasons[field] = f"NVML: {error}"
            return None

    def _process_mib(self, running: list[Any], pid: int | None) -> float | None:
        if pid is None:
            return None
        used = [process.usedGpuMemory for process in running if process.pid == pid]
        if not used:
            self.reasons.setdefault("gpu_process_mib", "NVML does not list the process (a container or WSL hides it)")
            return None
        if used[0] is None:
            self.reasons["gpu_process_mib"] = "NVML gives no memory per process here (Windows WDDM)"
            return None
        return float(used[0] / _MIB)


def open_gpu(uuid: str) -> GpuReader:
    """A reader for the GPU with this NVML uuid."""
    return GpuReader(uuid)


def list_gpus(torch_facts: TorchFacts | None) -> tuple[list[GpuProfile], str | None]:
    """The GPUs that NVML sees, in its order, and why there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    return [_profile(pynvml, index, torch_facts) for index in range(count)], None if count else "NVML sees no GPU"


def _profile(nvml: Any, index: int, torch_facts: TorchFacts | None) -> GpuProfile:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def read(question: Callable[[], Any], convert: Callable[[Any], T]) -> Reading[T]:
        try:
            return Reading[Any](value=convert(question()), source=_SOURCE)
        except nvml.NVMLError as error:
            return Reading[Any].missing(_SOURCE, str(error))

    uuid = read(lambda: nvml.nvmlDeviceGetUUID(handle), _text)
    return GpuProfile(
        index=index,
        name=read(lambda: nvml.nvmlDeviceGetName(handle), _text),
        uuid=uuid,
        vram_total_mib=read(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total, lambda value: value // _MIB),
        vram_used_mib=read(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used, lambda value: value // _MIB),
        compute_capability=read(
            lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle), lambda pair: f"{pair[0]}.{pair[1]}"
        ),
        driver=read(nvml.nvmlSystemGetDriverVersion, _text),
        cuda=read(nvml.nvmlSystemGetCudaDriverVersion_v2, lambda value: f"{value // 1000}.{value % 1000 // 10}"),
        power_limit_w=read(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle), lambda value: value / 1000),
        temperature_c=read(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU), float),
        mig=read(lambda: nvml.nvmlDeviceGetMigMode(handle)[0], bool),
        pcie_generation=read(lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle), int),
        pcie_width=read(lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle), int),
        torch_index=_torch_index(uuid.value, torch_facts),
    )


def _torch_index(uuid: str | None, facts: TorchFacts | None) -> Reading[int]:
    """torch counts inside ``CUDA_VISIBLE_DEVICES``, so the two are matched by uuid."""
    if facts is None:
        return Reading[int].missing("torch", _NOT_ASKED)
    for device in facts.devices:
        if uuid is not None and device.uuid is not None and _bare(device.uuid) == _bare(uuid):
            return Reading[int](value=device.index, source="torch")
    return Reading[int].missing("torch", facts.reason or "torch does not see it (CUDA_VISIBLE_DEVICES?)")


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").lower()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
