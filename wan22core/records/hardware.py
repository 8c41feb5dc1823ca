"""A machine as it was found."""

from __future__ import annotations

from datetime import datetime

from wan22core.records.base import Reading, Record


class CpuProfile(Record):
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


class MemoryProfile(Record):
    """Main memory in MiB."""

    total_mib: Reading[int]
    available_mib: Reading[int]
    cgroup_limit_mib: Reading[int]


class DiskProfile(Record):
    """The disk of the data folder."""

    path: str
    total_mib: Reading[int]
    free_mib: Reading[int]
    filesystem: Reading[str]


class GpuProfile(Record):
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


class HardwareProfile(Record):
    """A truthful picture of this machine."""

    cpu: CpuProfile
    memory: MemoryProfile
    disk: DiskProfile
    gpus: list[GpuProfile]
    gpu_reason: str | None
    """Why there is no GPU in the list, when there is none."""
    software: SoftwareProfile
    detected_at: datetime
