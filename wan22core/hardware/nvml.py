"""NVIDIA's management library: the one file that talks to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from wan22core.errors import DeviceError
from wan22core.hardware.readings import known
from wan22core.hardware.system_files import HERE, read_text
from wan22core.records import GpuProfile, Reading, TorchFacts

_MIB = 2**20
_SOURCE = "nvml"
_SLOWDOWN_MARGIN_C = -2  # where the slowdown begins by `nvidia-smi -q` on every card that gives a margin
T = TypeVar("T")


class GpuReading(BaseModel):
    """One look at a GPU, fields as in a ``Sample``; None where there was nothing to read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_process_mib: float | None = None
    gpu_device_mib: float | None = None
    gpu_utilization_percent: float | None = None
    gpu_memory_utilization_percent: float | None = None
    gpu_temperature_c: float | None = None
    gpu_temperature_margin_c: float | None = None
    gpu_power_w: float | None = None
    gpu_sm_mhz: float | None = None
    gpu_memory_mhz: float | None = None
    gpu_throttle_reasons: int | None = None
    """NVML's bit mask."""
    gpu_energy_j: float | None = None
    """Joules since the driver was loaded."""
    processes: tuple[int, ...] | None = None
    """Ids of the processes that hold a compute context, as the driver numbers them; None where it gives no list."""


@runtime_checkable
class GpuProbe(Protocol):
    """What the sampler asks for a GPU's state: the real reader, or a replayed trace."""

    reasons: dict[str, str]
    """Why a quantity was missing, by field name, as last seen."""

    def read(self, pid: int | None) -> GpuReading:
        """The state now; ``gpu_process_mib`` is that of ``pid``."""

    def close(self) -> None:
        """Lets the library go; harmless a second time."""


class GpuReader:
    """One GPU of this machine through NVML, without a CUDA context; cheap enough for ten reads a second."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.reasons: dict[str, str] = {}
        self._nvml = nvml
        self._handle = handle
        self._open = True

    def read(self, pid: int | None) -> GpuReading:
        """The state now. A question that the card or the driver does not answer gives None and a reason."""
        nvml = self._nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, "gpu_device_mib")
        use = self._ask(nvml.nvmlDeviceGetUtilizationRates, "gpu_utilization_percent", "gpu_memory_utilization_percent")
        # The compute list alone: a process may stand in the graphics list as well, and would be counted twice.
        running = self._ask(nvml.nvmlDeviceGetComputeRunningProcesses, "gpu_process_mib")
        power_mw = self._ask(nvml.nvmlDeviceGetPowerUsage, "gpu_power_w")
        temperature_c = self._ask(
            lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), "gpu_temperature_c"
        )
        energy_mj = self._ask(nvml.nvmlDeviceGetTotalEnergyConsumption, "gpu_energy_j")
        return GpuReading(
            gpu_process_mib=None if running is None else self._process_mib(running, pid),
            gpu_device_mib=None if memory is None else memory.used / _MIB,
            gpu_utilization_percent=None if use is None else use.gpu,
            gpu_memory_utilization_percent=None if use is None else use.memory,
            gpu_temperature_c=temperature_c,
            gpu_temperature_margin_c=self._margin_c(temperature_c),
            gpu_power_w=None if power_mw is None else power_mw / 1000,
            gpu_sm_mhz=self._ask(lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM), "gpu_sm_mhz"),
            gpu_memory_mhz=self._ask(
                lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM), "gpu_memory_mhz"
            ),
            gpu_throttle_reasons=self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, "gpu_throttle_reasons"),
            gpu_energy_j=None if energy_mj is None else energy_mj / 1000,
            processes=None if running is None else tuple(process.pid for process in running),
        )

    def close(self) -> None:
        """Lets the library go; harmless a second time."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _ask(self, question: Callable[[Any], Any], *fields: str) -> Any:
        try:
            return question(self._handle)
        except self._nvml.NVMLError as error:
            self.reasons.update(dict.fromkeys(fields, f"NVML: {error}"))
            return None

    def _margin_c(self, temperature_c: float | None) -> float | None:
        """Degrees below the highest operating temperature; without the driver's own figure what a threshold leaves."""
        field = "gpu_temperature_margin_c"
        margin_c: float | None = self._ask(self._nvml.nvmlDeviceGetMarginTemperature, field)
        if margin_c is not None or temperature_c is None or self._hottest_c is None:
            return margin_c
        del self.reasons[field]
        return self._hottest_c - temperature_c

    @cached_property
    def _hottest_c(self) -> float | None:
        """Where the margin is zero, asked once because it belongs to the card; Pascal names its slowdown alone."""
        nvml = self._nvml

        def ask(threshold: int) -> float | None:
            found: float | None = self._ask(lambda gpu: nvml.nvmlDeviceGetTemperatureThreshold(gpu, threshold))
            return found

        highest_c = ask(nvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX)
        if highest_c is not None:
            return highest_c
        slowdown_c = ask(nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
        return None if slowdown_c is None else slowdown_c + _SLOWDOWN_MARGIN_C

    def _process_mib(self, running: list[Any], pid: int | None) -> float | None:
        field = "gpu_process_mib"
        if pid is None:
            self.reasons.setdefault(field, "no process was watched")
            return None
        listed = [process for process in running if process.pid == pid]
        if not listed:
            self.reasons[field] = (
                "NVML does not list the process: it has no context, or another number outside a container or WSL"
            )
            return None
        used = listed[0].usedGpuMemory
        if used is None:
            self.reasons[field] = "NVML gives no memory per process here (Windows WDDM, WSL)"
            return None
        return float(used / _MIB)


def open_gpu(uuid: str) -> GpuReader:
    """A reader for the GPU with this uuid, written as NVML does (``GPU-...``) or as torch does (bare).

    Raises ``DeviceError`` where NVML is missing or does not know the GPU. The caller closes the reader.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise _unreadable(uuid, error) from error
    try:
        return GpuReader(pynvml, pynvml.nvmlDeviceGetHandleByUUID(full_uuid(uuid)))
    except pynvml.NVMLError as error:
        pynvml.nvmlShutdown()
        raise _unreadable(uuid, error) from error


def list_gpus(torch_facts: TorchFacts | None) -> tuple[list[GpuProfile], str | None]:
    """The GPUs that NVML sees, in its order, and why there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [_profile(pynvml, index, torch_facts) for index in range(count)], None if count else "NVML sees no GPU"
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def full_uuid(uuid: str) -> str:
    """NVML's way to write the uuid of a GPU: torch leaves the ``GPU-`` out."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _unreadable(uuid: str, error: Exception) -> DeviceError:
    return DeviceError(
        f"The GPU {uuid} can't be read through NVML: {error}.",
        next_action="Check that nvidia-smi works here; in a container, that it was started with the NVIDIA runtime.",
    )


def _profile(nvml: Any, index: int, torch_facts: TorchFacts | None) -> GpuProfile:
    """A GPU that does not answer at all (fallen off the bus) is listed with NVML's words in every field."""

    def read(question: Callable[[Any], Any], convert: Callable[[Any], T]) -> Reading[T]:
        try:
            return known(convert(question(nvml.nvmlDeviceGetHandleByIndex(index))), _SOURCE, "")
        except nvml.NVMLError as error:
            return known(None, _SOURCE, f"NVML: {error}")

    uuid = read(nvml.nvmlDeviceGetUUID, _text)
    return GpuProfile(
        index=index,
        name=read(nvml.nvmlDeviceGetName, _text),
        uuid=uuid,
        vram_total_mib=read(nvml.nvmlDeviceGetMemoryInfo, lambda memory: int(memory.total // _MIB)),
        vram_used_mib=read(nvml.nvmlDeviceGetMemoryInfo, lambda memory: int(memory.used // _MIB)),
        compute_capability=read(nvml.nvmlDeviceGetCudaComputeCapability, lambda pair: f"{pair[0]}.{pair[1]}"),
        driver=read(lambda _: nvml.nvmlSystemGetDriverVersion(), _text),
        cuda=read(lambda _: nvml.nvmlSystemGetCudaDriverVersion_v2(), lambda n: f"{n // 1000}.{n % 1000 // 10}"),
        power_limit_w=read(nvml.nvmlDeviceGetEnforcedPowerLimit, lambda limit_mw: float(limit_mw / 1000)),
        temperature_c=read(lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), float),
        mig=read(nvml.nvmlDeviceGetMigMode, lambda modes: bool(modes[0])),
        ecc_enabled=read(nvml.nvmlDeviceGetEccMode, lambda modes: bool(modes[0])),
        cuda_cores=read(nvml.nvmlDeviceGetNumGpuCores, int),
        max_sm_mhz=read(lambda gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM), int),
        max_memory_mhz=read(lambda gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM), int),
        memory_bus_bits=read(nvml.nvmlDeviceGetMemoryBusWidth, int),
        pcie_generation=read(nvml.nvmlDeviceGetMaxPcieLinkGeneration, int),
        pcie_width=read(nvml.nvmlDeviceGetMaxPcieLinkWidth, int),
        numa_node=_numa_node(read(nvml.nvmlDeviceGetPciInfo, lambda slot: _text(slot.busId))),
        torch_index=_torch_index(uuid.value, torch_facts),
    )


def _numa_node(bus_id: Reading[str]) -> Reading[int]:
    """The node of a PCI slot by Linux, which writes the address with a domain of four digits and in small letters."""
    if bus_id.value is None:
        return known(None, bus_id.source, bus_id.reason or "")
    domain, _, slot = bus_id.value.lower().partition(":")
    file = HERE / "sys/bus/pci/devices" / f"{domain[-4:]}:{slot}" / "numa_node"
    text = read_text(file)
    return known(int(text) if text.isdigit() else None, str(file), f"it says {text or 'nothing'!r}")


def _torch_index(uuid: str | None, facts: TorchFacts | None) -> Reading[int]:
    """torch counts inside ``CUDA_VISIBLE_DEVICES``, so the two are matched by uuid."""
    if facts is None:
        return known(None, "torch", "torch was not asked")
    for device in facts.devices:
        if uuid is not None and device.uuid is not None and full_uuid(device.uuid).lower() == uuid.lower():
            return known(device.index, "torch", "")
    return known(None, "torch", facts.reason or "torch does not see it (CUDA_VISIBLE_DEVICES?)")


def _text(value: str | bytes) -> str:
    """Older bindings give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
