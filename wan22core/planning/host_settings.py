"""Settings of the host for a machine: threads, workers, binding, allocator, precision. Pure; the worker applies them.

The ranges for workstations of 32 cores and more, and for cards of 4, 8 and 16 GB, are those that the original
description asks for; between them everything grows with the cores and the memory and never falls.
"""

from __future__ import annotations

from typing import TypeVar

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.records import CpuProfile, Record

_WORKSTATION_CORES = 32
_GIB = 1024
T = TypeVar("T", int, float)


class HostSettings(Record):
    """What to set before and in the worker."""

    threads: int
    """torch's threads within an operation."""
    interop_threads: int
    """torch's threads between operations."""
    workers: int
    """Processes that prepare data."""
    preprocessing_threads: int
    """Threads that read and resize images."""
    io_threads: int
    """Threads that read a checkpoint."""
    numa_node: int | None
    """Node to bind to; None where there is only one, or none is known."""
    allocator: str | None
    """``PYTORCH_CUDA_ALLOC_CONF``; None without a CUDA card."""
    tf32: bool
    """fp32 products as TF32."""
    working_precision: str
    """bf16 where the card has it, fp16 on older ones, fp32 without a card."""
    fp16_accumulation: bool
    """Whether the card gains from 16-bit accumulation: its fp32 accumulation runs at half rate."""
    vae_tile: int
    """Side of a VAE tile in pixels."""
    memory_fraction: float
    """Share of the card's memory that the allocator may take."""
    batch: int
    """Videos at a time."""


def host_settings(cpu: CpuProfile, gpu: GpuSpec | None, vram_mib: float | None) -> HostSettings:
    """The settings for these processors and the card that is used with them; the memory is what the card reports."""
    cores, nodes = _cores(cpu), cpu.numa_nodes.value or 1
    vram_gib = (vram_mib or 0.0) / _GIB
    return HostSettings(
        threads=_between(cores // 2, 16, 32) if cores >= _WORKSTATION_CORES else max(1, cores // 2),
        interop_threads=max(1, min(4, cores // 4)),
        workers=_between(cores // 8, 4, 8) if cores >= _WORKSTATION_CORES else max(1, cores // 8),
        preprocessing_threads=max(1, min(8, cores // 2)),
        io_threads=max(1, min(16, cores)),
        numa_node=0 if nodes > 1 else None,
        allocator="expandable_segments:True" if gpu is not None else None,
        tf32=gpu is not None and gpu.generation.has_bf16,
        working_precision="fp32" if gpu is None else "bf16" if gpu.generation.has_bf16 else "fp16",
        fp16_accumulation=gpu is not None and gpu.half_rate_fp32,
        vae_tile=_step(vram_gib, {0: 256, 3.5: 384, 11: 512, 22: 704}),
        memory_fraction=_step(vram_gib, {0: 0.8, 7: 0.85, 11: 0.88, 15: 0.9, 22: 0.92}),
        batch=1,
    )


def _cores(cpu: CpuProfile) -> int:
    """Physical cores that may be used; without a figure half of the logical ones."""
    known = [reading.value for reading in (cpu.physical_cores, cpu.usable_cpus) if reading.value is not None]
    return max(1, int(min(known))) if known else max(1, (cpu.logical_cpus.value or 2) // 2)


def _between(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def _step(value: float, steps: dict[float, T]) -> T:
    """The entry of the highest step that ``value`` reaches."""
    return steps[max(step for step in steps if value >= step)]
