"""A machine as it was found."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from wan22core.records.base import Reading, Record

_OLDER = "it was not asked for when this was recorded"


class CpuProfile(Record):
    """The processors, and how much of them this process may use."""

    model: Reading[str]
    physical_cores: Reading[int]
    logical_cpus: Reading[int]
    usable_cpus: Reading[float]
    """By affinity and cgroup quota; may be fractional."""
    sockets: Reading[int]
    numa_nodes: Reading[int]
    numa_cpus: Reading[dict[int, list[int]]] = Reading[dict[int, list[int]]].missing("record", _OLDER)
    """The logical CPUs of each node by its number; none for a node that has only memory."""
    affinity: Reading[list[int]]
    cgroup_quota_cpus: Reading[float]


class MemoryProfile(Record):
    """Main memory in MiB."""

    total_mib: Reading[int]
    available_mib: Reading[int]
    limit_mib: Reading[int]
    """What the control groups leave of it."""


class DiskProfile(Record):
    """The disk of the data folder."""

    path: str
    total_mib: Reading[int]
    free_mib: Reading[int]
    filesystem: Reading[str]


class GpuProfile(Record):
    """One GPU."""

    index: int
    state: Literal["ok", "lost"] = "ok"
    """``lost``: it fell off the bus, and answers nothing."""
    name: Reading[str]
    """As its source prints it: the table of nvidia-smi cuts long names and ends them with ``...``."""
    uuid: Reading[str]
    vram_total_mib: Reading[int]
    vram_used_mib: Reading[int]
    compute_capability: Reading[str]
    driver: Reading[str]
    cuda: Reading[str]
    power_limit_w: Reading[float]
    temperature_c: Reading[float]
    mig: Reading[bool]
    ecc_enabled: Reading[bool]
    cuda_cores: Reading[int]
    max_sm_mhz: Reading[int]
    """The boost clock that the card may reach."""
    max_memory_mhz: Reading[int]
    """Two transfers a clock."""
    memory_bus_bits: Reading[int]
    pcie_generation: Reading[int]
    """What card and slot can do together; the link itself rests at a lower one."""
    pcie_width: Reading[int]
    numa_node: Reading[int] = Reading[int].missing("record", _OLDER)
    """The node whose processors reach it without a detour."""
    torch_index: Reading[int]
    """Index inside ``CUDA_VISIBLE_DEVICES``, as torch counts."""


class MigInstance(Record):
    """A slice of a GPU in MIG mode; instances that share a GPU instance share its memory."""

    gpu: int
    memory_mib: Reading[int]


class TorchDevice(Record):
    """A CUDA device as torch sees it."""

    index: int
    """torch's own number, inside ``CUDA_VISIBLE_DEVICES``."""
    name: str
    uuid: str | None
    total_mib: int
    compute_capability: str


class TorchFacts(Record):
    """What torch can use, asked in the worker."""

    version: str
    cuda_version: str | None
    """CUDA that torch was built with."""
    devices: list[TorchDevice]
    reason: str | None
    """Why there is no device, when there is none."""


class SoftwareProfile(Record):
    """What the numbers depend on besides the hardware."""

    host: str
    operating_system: str
    kernel: str
    python: str
    packages: dict[str, Reading[str]]
    """Versions of torch, diffusers, transformers, prefect, great_expectations, wan22."""
    commit: Reading[str]
    """Git commit of the checkout that wan22 runs from."""


class MachineProfile(Record):
    """What can be known of any machine: this one, or another one by its dumps."""

    cpu: CpuProfile
    memory: MemoryProfile
    gpus: list[GpuProfile]
    gpu_vendor: Reading[str]
    """``nvidia``, ``amd``, ``intel`` or ``apple``; named even where its GPU can't be measured."""
    gpu_reason: str | None
    """Why there is no GPU in the list, when there is none."""
    mig_instances: list[MigInstance] = Field(default_factory=list)
    errors: list[str] = Field(default_factory=list)
    """Codes of what the sources complained of: ``driver_not_running``, ``gpu_lost``..."""
    notes: list[str] = Field(default_factory=list)
    """What could not be read, and where sources contradict each other."""


class HardwareProfile(MachineProfile):
    """A truthful picture of this machine."""

    disk: DiskProfile
    software: SoftwareProfile
    detected_at: datetime

    def gpu_of(self, device: str) -> GpuProfile | None:
        """The GPU behind a torch device name, None for the CPU."""
        if not device.startswith("cuda"):
            return None
        index = int(device.partition(":")[2] or 0)
        return next((gpu for gpu in self.gpus if gpu.torch_index.value == index), None)
