"""This machine, whole: processors, memory, disk, GPUs by NVML and by torch, software."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import psutil

from wan22core.hardware.cpu import cpu_profile, memory_profile
from wan22core.hardware.nvml import list_gpus
from wan22core.hardware.software import software_profile
from wan22core.records import DiskProfile, GpuProfile, HardwareProfile, Reading, TorchDevice, TorchFacts

_MIB = 2**20
_TOLERANCE = 0.02
_TOLERANCE_MIB = 400


def detect(data_dir: Path, torch_facts: TorchFacts | None = None) -> HardwareProfile:
    """The profile now. torch's own view comes from the worker, which is the only process that imports it."""
    gpus, reason = list_gpus(torch_facts)
    if torch_facts is not None:
        gpus = [_cross_checked(gpu, torch_facts) for gpu in gpus]
        gpus += _only_torch_sees(gpus, torch_facts)
        reason = None if gpus else "; ".join(part for part in (reason, torch_facts.reason) if part)
    return HardwareProfile(
        cpu=cpu_profile(),
        memory=memory_profile(),
        disk=_disk(data_dir),
        gpus=gpus,
        gpu_reason=reason,
        software=software_profile(),
        detected_at=datetime.now(UTC),
    )


def _cross_checked(gpu: GpuProfile, facts: TorchFacts) -> GpuProfile:
    """Says in the source where torch and NVML disagree on the memory by more than max(2 %, 400 MiB)."""
    total = gpu.vram_total_mib.value
    device = next((each for each in facts.devices if each.index == gpu.torch_index.value), None)
    if device is None or total is None or abs(device.total_mib - total) <= max(_TOLERANCE * total, _TOLERANCE_MIB):
        return gpu
    reading = Reading[int](value=total, source=f"nvml (torch says {device.total_mib} MiB)")
    return gpu.model_copy(update={"vram_total_mib": reading})


def _only_torch_sees(gpus: list[GpuProfile], facts: TorchFacts) -> list[GpuProfile]:
    matched = {gpu.torch_index.value for gpu in gpus}
    return [_from_torch(device, facts) for device in facts.devices if device.index not in matched]


def _from_torch(device: TorchDevice, facts: TorchFacts) -> GpuProfile:
    unknown = "NVML does not see this device, and torch does not say"

    def missing() -> Reading:  # type: ignore[type-arg]
        return Reading.missing("torch", unknown)

    def known(value: object) -> Reading:  # type: ignore[type-arg]
        return Reading(value=value, source="torch") if value is not None else missing()

    return GpuProfile(
        index=device.index,
        name=known(device.name),
        uuid=known(device.uuid),
        vram_total_mib=known(device.total_mib),
        vram_used_mib=missing(),
        compute_capability=known(device.compute_capability),
        driver=missing(),
        cuda=known(facts.cuda_version),
        power_limit_w=missing(),
        temperature_c=missing(),
        mig=missing(),
        pcie_generation=missing(),
        pcie_width=missing(),
        torch_index=known(device.index),
    )


def _disk(folder: Path) -> DiskProfile:
    """The disk of ``folder``, which need not exist yet."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    usage = psutil.disk_usage(str(existing))
    mounts = [part for part in psutil.disk_partitions(all=True) if existing.is_relative_to(part.mountpoint)]
    mount = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return DiskProfile(
        path=str(folder),
        total_mib=Reading[int](value=usage.total // _MIB, source="psutil"),
        free_mib=Reading[int](value=usage.free // _MIB, source="psutil"),
        filesystem=(
            Reading[str](value=mount.fstype, source="psutil")
            if mount is not None and mount.fstype
            else Reading[str].missing("psutil", "no mount point is listed for it")
        ),
    )
