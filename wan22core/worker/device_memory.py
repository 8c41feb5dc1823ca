"""What the worker knows about device memory around a stage: torch's allocator, NVML's figure for this process."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from wan22core.errors import IncompatibleHardwareError
from wan22core.hardware.memory import memory_profile
from wan22core.records import MemoryReading

_MIB = 2**20
_CEILING_MARGIN_MIB = 256


@dataclass(frozen=True)
class StageMemory:
    """The allocator's peaks of one stage and the simultaneous readings at its end, MiB; None without a device."""

    peak_allocated_mib: float | None = None
    peak_reserved_mib: float | None = None
    peak_process_mib: float | None = None
    process_source: str | None = None
    allocator_retries: int | None = None
    end: MemoryReading = field(default_factory=MemoryReading)


class DeviceMemory(Protocol):
    """Measured around each stage."""

    def synchronize(self) -> None:
        """Waits until the device has done what it was given."""

    def begin(self) -> None:
        """Starts the peaks anew."""

    def end(self) -> StageMemory:
        """The peaks since ``begin``; nothing is emptied before they are read."""

    def limit(self, ceiling_mib: int) -> None:
        """Emulates a smaller card: caps the allocator so that the process stays below the ceiling."""

    def room_mib(self) -> float | None:
        """What this process could allocate now; None where nothing says so."""


class NoDeviceMemory:
    """A CPU has no device memory; the parent's samples show the resident memory."""

    def synchronize(self) -> None:
        """Nothing runs asynchronously."""

    def begin(self) -> None:
        """Nothing to start."""

    def end(self) -> StageMemory:
        return StageMemory()

    def room_mib(self) -> float | None:
        """Main memory is what a CPU computes in; the tighter of the system's and the container's."""
        memory = memory_profile()
        left = [reading.value for reading in (memory.available_mib, memory.limit_mib) if reading.value is not None]
        return float(min(left)) if left else None

    def limit(self, ceiling_mib: int) -> None:
        raise IncompatibleHardwareError(
            f"A ceiling of {ceiling_mib} MiB on device memory needs a CUDA device, and this run has none.",
            next_action="Leave --vram-limit-mib out, or run on a GPU.",
        )


class CudaMemory:
    """One CUDA device through torch's caching allocator and its probe (NVML)."""

    def __init__(self, device: str) -> None:
        import torch

        from wan22core.hardware.probes import open_probe

        self._cuda: Any = torch.cuda
        self._device = torch.device(device)
        uuid = str(torch.cuda.get_device_properties(self._device).uuid)
        self._probe = open_probe(uuid)
        before = None if self._cuda.memory_reserved(self._device) else self._device_mib()
        torch.zeros(1, device=self._device)
        self.synchronize()
        self._context_mib = self._measure_context(before)
        self._cap_mib: float | None = None
        self._retries = 0

    def synchronize(self) -> None:
        self._cuda.synchronize(self._device)

    def begin(self) -> None:
        self._cuda.reset_peak_memory_stats(self._device)
        self._retries = self._allocator_retries()

    def end(self) -> StageMemory:
        now = self._now()
        peak_reserved = self._cuda.max_memory_reserved(self._device) / _MIB
        outside, source = self._outside_allocator(now)
        return StageMemory(
            peak_allocated_mib=self._cuda.max_memory_allocated(self._device) / _MIB,
            peak_reserved_mib=peak_reserved,
            peak_process_mib=None if outside is None else peak_reserved + outside,
            process_source=source,
            allocator_retries=self._allocator_retries() - self._retries,
            end=now,
        )

    def limit(self, ceiling_mib: int) -> None:
        outside, _ = self._outside_allocator(self._now())
        total_mib = self._cuda.get_device_properties(self._device).total_memory / _MIB
        cap_mib = ceiling_mib - (outside or 0.0) - _CEILING_MARGIN_MIB
        if outside is None or cap_mib <= 0:
            raise IncompatibleHardwareError(
                f"A ceiling of {ceiling_mib} MiB can't be emulated: the CUDA context takes {outside} MiB.",
                next_action="Give a higher --vram-limit-mib.",
            )
        self._cap_mib = cap_mib
        self._cuda.set_per_process_memory_fraction(min(1.0, cap_mib / total_mib), self._device)

    def room_mib(self) -> float | None:
        """Free on the device, with what the allocator holds and has not handed out; no more than a ceiling leaves."""
        now = self._now()
        free_mib = self._cuda.mem_get_info(self._device)[0] / _MIB
        assert now.reserved_mib is not None and now.allocated_mib is not None
        room_mib: float = free_mib + now.reserved_mib - now.allocated_mib
        return room_mib if self._cap_mib is None else min(room_mib, self._cap_mib - now.allocated_mib)

    def _now(self) -> MemoryReading:
        free, total = self._cuda.mem_get_info(self._device)
        return MemoryReading(
            allocated_mib=self._cuda.memory_allocated(self._device) / _MIB,
            reserved_mib=self._cuda.memory_reserved(self._device) / _MIB,
            process_mib=self._probe.read(os.getpid()).gpu_process_mib,
            device_mib=(total - free) / _MIB,
        )

    def _outside_allocator(self, now: MemoryReading) -> tuple[float | None, str | None]:
        """MiB of this process that torch's allocator does not hold (context, cuBLAS, cuDNN), and where that is from."""
        if now.process_mib is not None and now.reserved_mib is not None:
            return now.process_mib - now.reserved_mib, "nvml"
        if self._context_mib is not None:
            return self._context_mib, "reserved+context"
        return None, None

    def _measure_context(self, before_mib: float | None) -> float | None:
        """What creating the context added to the device's use, where NVML gives no figure for a process.

        Unknown where the context was there before us, or another process freed more than ours took.
        """
        after_mib = self._device_mib()
        if before_mib is None or after_mib is None:
            return None
        added = after_mib - before_mib - float(self._cuda.memory_reserved(self._device) / _MIB)
        return added if added > 0 else None

    def _device_mib(self) -> float | None:
        """By NVML both times: its figure holds what the driver reserves, CUDA's does not."""
        return self._probe.read(os.getpid()).gpu_device_mib

    def _allocator_retries(self) -> int:
        return int(self._cuda.memory_stats(self._device).get("num_alloc_retries", 0))


def device_memory(device: str) -> DeviceMemory:
    """The meter for a torch device name."""
    return CudaMemory(device) if device.startswith("cuda") else NoDeviceMemory()
