"""Settings of the host for a machine: threads, workers, binding, allocator, precision. Pure; the worker applies them.

The ranges for workstations of 32 cores and more, and for cards of 4, 8 and 16 GB, are those that the original
description asks for; between them everything grows with the cores and the memory and never falls.
"""

from __future__ import annotations

from typing import TypeVar

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.records import CpuProfile, Record

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
ALLOCATOR_VARIABLE = "PYTORCH_ALLOC_CONF"  # so torch documents it; PYTORCH_CUDA_ALLOC_CONF is its older name
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
    """The card's own node, to bind to; None where that brings nothing, costs cores, or is not known."""
    numa_cpus: tuple[int, ...] | None
    """The logical CPUs of that node that may be used."""
    allocator: str | None
    """``PYTORCH_ALLOC_CONF``; None without a CUDA card."""
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


def host_settings(
    cpu: CpuProfile,
    gpu: GpuSpec | None,
    vram_mib: float | None,
    *,
    gpu_node: int | None = None,
    threads: int | None = None,
) -> HostSettings:
    """The settings for these processors and the card that is used with them.

    ``vram_mib`` is what the card reports, ``gpu_node`` the NUMA node that it hangs on, None where the system does not
    say; ``threads`` are those that a person asked for.
    """
    cores = _cores(cpu)
    vram_gib = (vram_mib or 0.0) / _GIB
    if threads is None:
        threads = _between(cores // 2, 16, 32) if cores >= _WORKSTATION_CORES else max(1, cores // 2)
    node_cpus = _cpus_to_bind_to(cpu, gpu_node, threads)
    return HostSettings(
        threads=threads,
        interop_threads=max(1, min(4, cores // 4)),
        workers=_between(cores // 8, 4, 8) if cores >= _WORKSTATION_CORES else max(1, cores // 8),
        preprocessing_threads=max(1, min(8, cores // 2)),
        io_threads=max(1, min(16, cores)),
        numa_node=gpu_node if node_cpus else None,
        numa_cpus=node_cpus,
        allocator="expandable_segments:True" if gpu is not None else None,
        tf32=gpu is not None and gpu.generation.has_bf16,
        working_precision="fp32" if gpu is None else "bf16" if gpu.generation.has_bf16 else "fp16",
        fp16_accumulation=gpu is not None and gpu.half_rate_fp32,
        vae_tile=_step(vram_gib, {0: 256, 3.5: 384, 11: 512, 22: 704}),
        memory_fraction=_step(vram_gib, {0: 0.8, 7: 0.85, 11: 0.88, 15: 0.9, 22: 0.92}),
        batch=1,
    )


def environment_for(settings: HostSettings) -> dict[str, str]:
    """What a process must find in its environment before it imports torch.

    OpenMP and MKL read theirs when they are loaded. torch 2.13 obeys a ``PYTORCH_CUDA_ALLOC_CONF`` first where a person
    has set it; the worker reads back which of the two it was.
    """
    found = dict.fromkeys(THREAD_VARIABLES, str(settings.threads))
    if settings.allocator is not None:
        found[ALLOCATOR_VARIABLE] = settings.allocator
    return found


def _cpus_to_bind_to(cpu: CpuProfile, node: int | None, threads: int) -> tuple[int, ...] | None:
    """The usable CPUs of a node; None where they are all there are, or have fewer cores than there are threads."""
    nodes = {number: set(cpus) for number, cpus in (cpu.numa_cpus.value or {}).items()}
    everything: set[int] = set().union(*nodes.values())
    if cpu.affinity.value is not None:
        everything &= set(cpu.affinity.value)
    own = nodes[node] & everything if node in nodes else set()
    logical, physical = cpu.logical_cpus.value, cpu.physical_cores.value
    threads_a_core = max(1, logical // physical) if logical and physical else 2
    if own == everything or len(own) // threads_a_core < threads:
        return None
    return tuple(sorted(own))


def _cores(cpu: CpuProfile) -> int:
    """Physical cores that may be used; without a figure half of the logical ones."""
    known = [reading.value for reading in (cpu.physical_cores, cpu.usable_cpus) if reading.value is not None]
    return max(1, int(min(known))) if known else max(1, (cpu.logical_cpus.value or 2) // 2)


def _between(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def _step(value: float, steps: dict[float, T]) -> T:
    """The entry of the highest step that ``value`` reaches."""
    return steps[max(step for step in steps if value >= step)]
