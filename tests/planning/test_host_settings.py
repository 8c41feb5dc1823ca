"""Settings for machines: the asked ranges, and nothing that falls when a machine grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hardware.machines import processors
from wan22core.hardware.gpu_specs import find_spec
from wan22core.planning.host_settings import HostSettings, host_settings

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
    """16 to 32 threads, 4 to 8 workers, at least 4 for preprocessing; a binding only with several nodes."""
    found = of(cores, "NVIDIA GeForce RTX 4080", 16376, nodes=4)
    assert 16 <= found.threads <= min(32, cores // 2)
    assert 4 <= found.workers <= min(8, cores // 8)
    assert found.preprocessing_threads >= 4
    assert found.numa_node == 0


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
