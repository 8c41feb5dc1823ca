"""Settings for machines: the asked ranges, and nothing that falls when a machine grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hardware.machines import processors
from wan22core.hardware.gpu_specs import find_spec
from wan22core.planning.host_settings import HostSettings, environment_for, host_settings
from wan22core.records import Reading

GROWING = (
    "threads",
    "interop_threads",
    "workers",
    "preprocessing_threads",
    "io_threads",
    "vae_tile",
    "memory_fraction",
)


def of(cores: int, gpu: str | None, vram_mib: int | None, nodes: int = 1) -> HostSettings:
    return host_settings(processors(cores, nodes), find_spec(gpu) if gpu else None, vram_mib)


def test_a_workstation_with_an_rtx_4080() -> None:
    """bf16, fast 16-bit accumulation, tiles of 512 and more, at least 85 % of the memory."""
    found = of(64, "NVIDIA GeForce RTX 4080", 16376)
    assert (found.working_precision, found.tf32, found.fp16_accumulation, found.batch) == ("bf16", True, True, 1)
    assert found.vae_tile >= 512
    assert found.memory_fraction >= 0.85
    assert found.numa_node is None


@pytest.mark.parametrize("cores", [32, 48, 64, 96])
def test_the_ranges_of_a_threadripper(cores: int) -> None:
    """16 to 32 threads, 4 to 8 workers, at least 4 for preprocessing."""
    found = of(cores, "NVIDIA GeForce RTX 4080", 16376)
    assert 16 <= found.threads <= min(32, cores // 2)
    assert 4 <= found.workers <= min(8, cores // 8)
    assert found.preprocessing_threads >= 4


def test_the_worker_is_bound_to_the_node_of_its_card() -> None:
    """To those of its CPUs that this process may use, both threads of a core."""
    cpu = processors(64, nodes=2)
    found = host_settings(cpu, None, None, gpu_node=1)
    assert (found.threads, found.numa_node) == (32, 1)
    assert found.numa_cpus == (*range(32, 64), *range(96, 128))
    allowed = Reading[list[int]](value=[*range(36, 64), *range(100, 128)], source="test")
    narrowed = host_settings(cpu.model_copy(update={"affinity": allowed}), None, None, gpu_node=1, threads=16)
    assert narrowed.numa_node is None, "this process runs on that node alone already"
    wider = Reading[list[int]](value=[0, *(allowed.value or [])], source="test")
    narrowed = host_settings(cpu.model_copy(update={"affinity": wider}), None, None, gpu_node=1, threads=16)
    assert narrowed.numa_cpus == (*range(36, 64), *range(100, 128))


@pytest.mark.parametrize(
    ("nodes", "node", "threads"),
    [(1, 0, None), (2, None, None), (2, 7, None), (4, 1, None), (2, 1, 33)],
    ids=["one node", "the system does not say", "no such node", "16 cores for 32 threads", "more threads asked for"],
)
def test_nothing_is_bound_without_a_gain(nodes: int, node: int | None, threads: int | None) -> None:
    """Nor where that would leave a thread without a core of its own."""
    found = host_settings(processors(64, nodes), None, None, gpu_node=node, threads=threads)
    assert (found.numa_node, found.numa_cpus) == (None, None)


@pytest.mark.parametrize(("gpu", "names"), [(None, set()), ("NVIDIA GeForce RTX 4080", {"PYTORCH_ALLOC_CONF"})])
def test_the_environment_is_that_of_the_settings(gpu: str | None, names: set[str]) -> None:
    """Threads for OpenMP and MKL; the allocator's configuration where there is a card."""
    found = environment_for(of(8, gpu, 16376))
    assert found.keys() == {"OMP_NUM_THREADS", "MKL_NUM_THREADS", *names}
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("4", "4")
    assert {found[name] for name in names} <= {"expandable_segments:True"}


@pytest.mark.parametrize(("vram_mib", "tile", "fraction"), [(8188, 512, 0.85), (4096, 384, 0.85)])
def test_small_cards(vram_mib: int, tile: int, fraction: float) -> None:
    """Small tiles, a smaller share, one video at a time."""
    found = of(8, "NVIDIA GeForce RTX 4060", vram_mib)
    assert (found.vae_tile <= tile, found.memory_fraction <= fraction, found.batch) == (True, True, 1)


def test_a_small_machine_without_a_card() -> None:
    """One thread, the smallest tile, fp32."""
    found = of(2, None, None)
    assert (found.threads, found.vae_tile, found.working_precision, found.allocator) == (1, 256, "fp32", None)


@given(st.integers(1, 256), st.integers(1, 64), st.integers(1_000, 100_000), st.integers(0, 50_000))
def test_nothing_falls_when_a_machine_grows(cores: int, more_cores: int, vram: int, more_vram: int) -> None:
    """Monotone in cores and in memory."""
    card = "NVIDIA GeForce RTX 4080"
    small, large = of(cores, card, vram), of(cores + more_cores, card, vram + more_vram)
    for name in GROWING:
        assert getattr(small, name) <= getattr(large, name), name
