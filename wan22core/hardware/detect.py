"""This machine, whole: processors, memory, disk, GPUs by NVML and by torch, software."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from wan22core.hardware import nvidia_smi
from wan22core.hardware.cpu import cpu_profile
from wan22core.hardware.manual import filled_up, load_entries
from wan22core.hardware.memory import disk_profile, memory_profile
from wan22core.hardware.merge import TOLERANCE, TOLERANCE_MIB, gpus_of
from wan22core.hardware.nvml import full_uuid, list_gpus
from wan22core.hardware.other_gpus import other_gpus
from wan22core.hardware.readings import known
from wan22core.hardware.software import software_profile
from wan22core.records import GpuProfile, HardwareProfile, Reading, TorchDevice, TorchFacts


def detect(data_dir: Path, torch_facts: TorchFacts | None = None) -> HardwareProfile:
    """The profile now. torch's own view comes from the worker, which is the only process that imports it.

    The GPUs by NVML and torch, by nvidia-smi where both see none, by what a person entered for what is still unknown.
    A GPU that NVML and torch both see is one entry; one that only torch sees has ``torch`` as its source.
    """
    gpus, reason = list_gpus(torch_facts)
    errors: list[str] = []
    if torch_facts is not None:
        only_torch = _only_torch_sees(gpus, torch_facts)
        gpus = [_cross_checked(gpu, torch_facts) for gpu in gpus] + only_torch
        reason = _joined(reason, torch_facts.reason and f"torch: {torch_facts.reason}")
    if not gpus:
        said = nvidia_smi.ask()
        gpus, _ = gpus_of([said])
        errors, reason = said.errors, _joined(reason, *(note.removesuffix(".") for note in said.notes))
    others = other_gpus()
    vendor = "nvidia" if gpus else next((vendor for vendor, _ in others), None)
    reason = _joined(reason, *(f"{what} is there, and can't be measured" for kind, what in others if kind != "nvidia"))
    gpus = filled_up(gpus, load_entries(data_dir))
    return HardwareProfile(
        cpu=cpu_profile(),
        memory=memory_profile(),
        disk=disk_profile(data_dir),
        gpus=gpus,
        gpu_vendor=known(vendor, "detection", reason or "no GPU was found"),
        gpu_reason=None if gpus else reason,
        errors=errors,
        software=software_profile(),
        detected_at=datetime.now(UTC),
    )


def _joined(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def _cross_checked(gpu: GpuProfile, facts: TorchFacts) -> GpuProfile:
    """Says in the source where torch and NVML disagree on the memory by more than max(2 %, 400 MiB)."""
    total = gpu.vram_total_mib.value
    device = next((each for each in facts.devices if each.index == gpu.torch_index.value), None)
    if device is None or total is None or abs(device.total_mib - total) <= max(TOLERANCE * total, TOLERANCE_MIB):
        return gpu
    reading = Reading[int](value=total, source=f"nvml (torch says {device.total_mib} MiB)")
    return gpu.model_copy(update={"vram_total_mib": reading})


def _only_torch_sees(gpus: list[GpuProfile], facts: TorchFacts) -> list[GpuProfile]:
    matched = {gpu.torch_index.value for gpu in gpus}
    return [_from_torch(device, facts) for device in facts.devices if device.index not in matched]


def _from_torch(device: TorchDevice, facts: TorchFacts) -> GpuProfile:
    unseen = "NVML does not show this device, and torch does not say"
    no_uuid = "torch gives no uuid, so this may be one of the GPUs that NVML shows"

    def unsaid() -> Reading:  # type: ignore[type-arg]  # fits a field of any type
        return known(None, "torch", unseen)

    return GpuProfile(
        index=device.index,
        name=known(device.name, "torch", unseen),
        uuid=known(device.uuid and full_uuid(device.uuid), "torch", no_uuid),
        vram_total_mib=known(device.total_mib, "torch", unseen),
        vram_used_mib=unsaid(),
        compute_capability=known(device.compute_capability, "torch", unseen),
        driver=unsaid(),
        cuda=known(facts.cuda_version, "torch", unseen),
        power_limit_w=unsaid(),
        temperature_c=unsaid(),
        mig=unsaid(),
        ecc_enabled=unsaid(),
        cuda_cores=unsaid(),
        max_sm_mhz=unsaid(),
        max_memory_mhz=unsaid(),
        memory_bus_bits=unsaid(),
        pcie_generation=unsaid(),
        pcie_width=unsaid(),
        numa_node=unsaid(),
        torch_index=known(device.index, "torch", unseen),
    )
