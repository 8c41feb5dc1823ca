"""The table of GPUs, and the spec of a card: by its name, or derived from what the driver says of it.

SMs, boost clock, bandwidth and bus are the vendor's data sheets' figures.
"""

from __future__ import annotations

import re

from wan22core.hardware.gpu_spec import (
    ADA,
    GA100,
    GA102,
    GB100,
    GB202,
    GENERATIONS,
    HOPPER,
    TURING,
    VOLTA,
    Generation,
    GpuSpec,
)
from wan22core.records import GpuProfile

_CORES_PER_SM = {"7.0": 64, "7.5": 64, "8.0": 64}  # 128 since then

_Row = tuple[str, int, int, float, int]
"""Name, SMs, boost clock in MHz, bandwidth in GB/s, memory in GiB."""


def _table(
    generation: Generation, pcie: int, rows: tuple[_Row, ...], *, half_rate: bool, width: int = 16
) -> list[GpuSpec]:
    return [
        GpuSpec(
            name=name, generation=generation, sms=sms, boost_mhz=boost, bandwidth_gb_s=bandwidth, vram_gib=vram,
            pcie_generation=pcie, pcie_width=width, half_rate_fp32=half_rate,
        )
        for name, sms, boost, bandwidth, vram in rows
    ]  # fmt: skip


GPU_SPECS: tuple[GpuSpec, ...] = (
    *_table(
        TURING,
        3,
        (
            ("GeForce RTX 2060 12GB", 34, 1650, 336, 12),
            ("GeForce RTX 2060 SUPER", 34, 1650, 448, 8),
            ("GeForce RTX 2070", 36, 1620, 448, 8),
            ("GeForce RTX 2070 SUPER", 40, 1770, 448, 8),
            ("GeForce RTX 2080", 46, 1710, 448, 8),
            ("GeForce RTX 2080 SUPER", 48, 1815, 496, 8),
            ("GeForce RTX 2080 Ti", 68, 1545, 616, 11),
        ),
        half_rate=True,
    ),
    *_table(
        GA102,
        4,
        (
            ("GeForce RTX 3060", 28, 1777, 360, 12),
            ("GeForce RTX 3060 Ti", 38, 1665, 448, 8),
            ("GeForce RTX 3070", 46, 1725, 448, 8),
            ("GeForce RTX 3070 Ti", 48, 1770, 608, 8),
            ("GeForce RTX 3080", 68, 1710, 760, 10),
            ("GeForce RTX 3080 12GB", 70, 1710, 912, 12),
            ("GeForce RTX 3080 Ti", 80, 1665, 912, 12),
            ("GeForce RTX 3090", 82, 1695, 936, 24),
            ("GeForce RTX 3090 Ti", 84, 1860, 1008, 24),
            ("GeForce RTX 3070 Laptop GPU", 40, 1620, 448, 8),
            ("GeForce RTX 3070 Ti Laptop GPU", 46, 1485, 448, 8),
            ("GeForce RTX 3080 Laptop GPU", 48, 1710, 448, 16),
            ("GeForce RTX 3080 Ti Laptop GPU", 58, 1590, 512, 16),
        ),
        half_rate=True,
    ),
    *_table(GA102, 4, (("GeForce RTX 3050", 20, 1777, 224, 8),), half_rate=True, width=8),
    *_table(
        ADA,
        4,
        (
            ("GeForce RTX 4070", 46, 2475, 504, 12),
            ("GeForce RTX 4070 SUPER", 56, 2475, 504, 12),
            ("GeForce RTX 4070 Ti", 60, 2610, 504, 12),
            ("GeForce RTX 4070 Ti SUPER", 66, 2610, 672, 16),
            ("GeForce RTX 4080", 76, 2505, 717, 16),
            ("GeForce RTX 4080 SUPER", 80, 2550, 736, 16),
            ("GeForce RTX 4090 D", 114, 2520, 1008, 24),
            ("GeForce RTX 4090", 128, 2520, 1008, 24),
            ("GeForce RTX 4080 Laptop GPU", 58, 2280, 432, 12),
            ("GeForce RTX 4090 Laptop GPU", 76, 2040, 576, 16),
        ),
        half_rate=True,
    ),
    *_table(
        ADA,
        4,
        (
            ("GeForce RTX 4060", 24, 2460, 272, 8),
            ("GeForce RTX 4060 Ti", 34, 2535, 288, 8),
            ("GeForce RTX 4060 Ti 16GB", 34, 2535, 288, 16),
            ("GeForce RTX 4060 Laptop GPU", 24, 2370, 256, 8),
            ("GeForce RTX 4070 Laptop GPU", 36, 2175, 256, 8),
        ),
        half_rate=True,
        width=8,
    ),
    *_table(
        GB202,
        5,
        (
            ("GeForce RTX 5070", 48, 2512, 672, 12),
            ("GeForce RTX 5070 Ti", 70, 2452, 896, 16),
            ("GeForce RTX 5080", 84, 2617, 960, 16),
            ("GeForce RTX 5090 D", 170, 2407, 1792, 32),
            ("GeForce RTX 5090", 170, 2407, 1792, 32),
            ("GeForce RTX 5070 Ti Laptop GPU", 46, 2220, 672, 12),
            ("GeForce RTX 5080 Laptop GPU", 60, 2287, 896, 16),
            ("GeForce RTX 5090 Laptop GPU", 82, 2160, 896, 24),
        ),
        half_rate=True,
    ),
    *_table(
        GB202,
        5,
        (
            ("GeForce RTX 5050", 20, 2572, 320, 8),
            ("GeForce RTX 5060", 30, 2497, 448, 8),
            ("GeForce RTX 5060 Ti", 36, 2572, 448, 8),
            ("GeForce RTX 5060 Ti 16GB", 36, 2572, 448, 16),
            ("GeForce RTX 5060 Laptop GPU", 26, 2497, 384, 8),
            ("GeForce RTX 5070 Laptop GPU", 36, 2347, 384, 8),
        ),
        half_rate=True,
        width=8,
    ),
    *_table(
        VOLTA,
        3,
        (("Tesla V100-SXM2-16GB", 80, 1530, 900, 16), ("Tesla V100-SXM2-32GB", 80, 1530, 900, 32)),
        half_rate=False,
    ),
    *_table(TURING, 3, (("Tesla T4", 40, 1590, 320, 16),), half_rate=False),
    *_table(
        GA100,
        4,
        (
            ("A30", 56, 1440, 933, 24),
            ("A100-PCIE-40GB", 108, 1410, 1555, 40),
            ("A100-SXM4-40GB", 108, 1410, 1555, 40),
            ("A100 80GB PCIe", 108, 1410, 1935, 80),
            ("A100-SXM4-80GB", 108, 1410, 2039, 80),
        ),
        half_rate=False,
    ),
    *_table(
        GA102,
        4,
        (
            ("A10", 72, 1695, 600, 24),
            ("A40", 84, 1740, 696, 48),
            ("RTX A4000", 48, 1560, 448, 16),
            ("RTX A4500", 56, 1650, 640, 20),
            ("RTX A5000", 64, 1695, 768, 24),
            ("RTX A5500", 80, 1665, 768, 24),
            ("RTX A6000", 84, 1800, 768, 48),
        ),
        half_rate=False,
    ),
    *_table(
        ADA,
        4,
        (
            ("L4", 58, 2040, 300, 24),
            ("L40S", 142, 2490, 864, 48),
            ("RTX 4000 Ada Generation", 48, 2175, 360, 20),
            ("RTX 4500 Ada Generation", 60, 2580, 432, 24),
            ("RTX 5000 Ada Generation", 100, 2550, 576, 32),
            ("RTX 6000 Ada Generation", 142, 2505, 960, 48),
        ),
        half_rate=False,
    ),
    *_table(ADA, 4, (("L20", 92, 2520, 864, 48), ("L40", 142, 2490, 864, 48)), half_rate=True),
    *_table(
        HOPPER,
        5,
        (
            ("H100 PCIe", 114, 1620, 2039, 80),
            ("H100 NVL", 132, 1545, 3938, 94),
            ("H100 80GB HBM3", 132, 1830, 3352, 80),
            ("H200", 132, 1830, 4800, 141),
            ("GH200 480GB", 132, 1830, 4000, 96),
        ),
        half_rate=False,
    ),
    *_table(GB100, 5, (("B200", 148, 1850, 8000, 180),), half_rate=False),
    *_table(
        GB202,
        5,
        (
            ("RTX PRO 4500 Blackwell", 82, 2617, 896, 32),
            ("RTX PRO 5000 Blackwell", 110, 2617, 1344, 48),
            ("RTX PRO 6000 Blackwell Workstation Edition", 188, 2617, 1792, 96),
            ("RTX PRO 6000 Blackwell Server Edition", 188, 2430, 1597, 96),
        ),
        half_rate=False,
    ),
)


def find_spec(name: str, vram_mib: int | None = None) -> GpuSpec | None:
    """The card of that name; of two memory sizes under one name the one nearest to ``vram_mib``.

    A name that a table cut (``...``) is found when it fits one card alone.
    """
    wanted = normal_name(name)
    if name.rstrip().endswith("..."):
        found = [spec for spec in GPU_SPECS if normal_name(spec.name).startswith(wanted)]
        return found[0] if len(found) == 1 else None
    found = [spec for spec in GPU_SPECS if _bare(spec.name) == wanted or normal_name(spec.name) == wanted]
    if not found:
        return None
    if vram_mib is None:
        return next((spec for spec in found if normal_name(spec.name) == wanted), found[0])
    return min(found, key=lambda spec: abs(spec.vram_gib * 1024 - vram_mib))


def is_named(spec: GpuSpec, name: str, vram_mib: int | None = None) -> bool:
    """Whether a card that calls itself ``name`` is ``spec``; of two sizes under one name either is without a memory."""
    found = find_spec(name, vram_mib or spec.vram_gib * 1024)
    return (found.name if found is not None else name) == spec.name


def normal_name(name: str) -> str:
    """Lower case, without the vendor, the brand and blanks: ``RTX 4080`` and ``NVIDIA GeForce RTX 4080`` are one."""
    words = re.sub(r"\b(nvidia|geforce|tesla|quadro|gpu)\b", "", name.lower().removesuffix("...").strip())
    return re.sub(r"[^a-z0-9]", "", words)


def _bare(name: str) -> str:
    """The name without a size that tells two cards apart for us and that NVML does not print."""
    return normal_name(re.sub(r" \d+GB$", "", name)) if name.startswith("GeForce") else normal_name(name)


def spec_of(gpu: GpuProfile) -> GpuSpec | None:
    """The card's spec by its name; for a card that the table does not have, derived from what the driver says of it."""
    name, vram_mib = gpu.name.value, gpu.vram_total_mib.value
    if name is not None and (found := find_spec(name, vram_mib)) is not None:
        return found
    return _derived(gpu)


def _derived(gpu: GpuProfile) -> GpuSpec | None:
    """SMs by the cores, bandwidth by bus and memory clock; taken for a card of half-rate accumulation, the slower kind.

    None where the driver does not say enough, or the generation is unknown.
    """
    generation = next((each for each in GENERATIONS if each.compute_capability == gpu.compute_capability.value), None)
    cores, bus = gpu.cuda_cores.value, gpu.memory_bus_bits.value
    clock, memory_clock, vram_mib = gpu.max_sm_mhz.value, gpu.max_memory_mhz.value, gpu.vram_total_mib.value
    if generation is None or not cores or not bus or not clock or not memory_clock or not vram_mib:
        return None
    return GpuSpec(
        name=gpu.name.value or "unknown GPU",
        generation=generation,
        sms=cores // _CORES_PER_SM.get(generation.compute_capability, 128),
        boost_mhz=clock,
        bandwidth_gb_s=bus / 8 * memory_clock * 2 / 1000,
        vram_gib=round(vram_mib / 1024),
        pcie_generation=gpu.pcie_generation.value or 3,
        pcie_width=gpu.pcie_width.value or 16,
        source="derived",
    )
