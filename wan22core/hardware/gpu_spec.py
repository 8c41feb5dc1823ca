"""What GPUs can do at most: dense FLOP/s by precision and accumulator, bandwidth, memory, by generation and size.

A peak is FLOP per clock and SM of the generation x SMs x boost clock. FLOP per clock and SM are those of NVIDIA's
architecture white papers (Volta, Turing, GA100, GA102, Ada, Hopper, Blackwell), a multiply-add counting two. On
GeForce cards, and on the L20 and L40, tensor cores run 16-bit products with fp32 accumulation at half rate: that is
why bf16 on an RTX 4080 reaches 97.5 TFLOP/s and not 195. SMs, boost clock, bandwidth and bus are the data sheets'.
"""

from __future__ import annotations

from typing import Literal

from wan22core.records import Record

_GIGA = 1e9

Operation = Literal["bf16_fp32", "fp16_fp32", "fp16_fp16", "fp8_fp32", "fp8_fp16", "int8_int32"]
"""Operands and accumulator of a matrix product."""


class Generation(Record):
    """FLOP per clock and SM of a generation's tensor cores, dense, at full rate."""

    name: str
    compute_capability: str
    flop_16: int
    """fp16 with fp16 accumulation; with fp32 accumulation too where the card is not cut down."""
    has_bf16: bool
    flop_8: int | None
    """fp8; None where the generation has none."""
    flop_int8: int | None


VOLTA = Generation(name="Volta", compute_capability="7.0", flop_16=1024, has_bf16=False, flop_8=None, flop_int8=None)
TURING = Generation(name="Turing", compute_capability="7.5", flop_16=1024, has_bf16=False, flop_8=None, flop_int8=2048)
GA100 = Generation(name="Ampere", compute_capability="8.0", flop_16=2048, has_bf16=True, flop_8=None, flop_int8=4096)
GA102 = Generation(name="Ampere", compute_capability="8.6", flop_16=1024, has_bf16=True, flop_8=None, flop_int8=2048)
ADA = Generation(name="Ada", compute_capability="8.9", flop_16=1024, has_bf16=True, flop_8=2048, flop_int8=2048)
HOPPER = Generation(name="Hopper", compute_capability="9.0", flop_16=4096, has_bf16=True, flop_8=8192, flop_int8=8192)
GB100 = Generation(
    name="Blackwell", compute_capability="10.0", flop_16=8192, has_bf16=True, flop_8=16384, flop_int8=16384
)
GB202 = Generation(
    name="Blackwell", compute_capability="12.0", flop_16=1024, has_bf16=True, flop_8=2048, flop_int8=2048
)
GENERATIONS = (VOLTA, TURING, GA100, GA102, ADA, HOPPER, GB100, GB202)


class GpuSpec(Record):
    """One model of a GPU."""

    name: str
    """As NVML writes it, without the vendor."""
    generation: Generation
    sms: int
    boost_mhz: int
    bandwidth_gb_s: float
    """Device memory, 10^9 bytes a second."""
    vram_gib: int
    """Nominal size; what a card reports is a little less."""
    pcie_generation: int
    pcie_width: int = 16
    half_rate_fp32: bool = True
    """Whether 16-bit and 8-bit products with fp32 accumulation run at half rate."""
    source: Literal["table", "derived"] = "table"
    """``derived``: not in the table, computed from what the driver says of the card."""

    def peak_flop_s(self, operation: Operation) -> float | None:
        """Dense FLOP/s at the boost clock; None where the card has no such instruction."""
        per_clock = self._flop_per_clock(operation)
        return None if per_clock is None else per_clock * self.sms * self.boost_mhz * 1e6

    @property
    def bandwidth_bytes_s(self) -> float:
        """Bytes a second of the device memory."""
        return self.bandwidth_gb_s * _GIGA

    @property
    def pcie_bytes_s(self) -> float:
        """Bytes a second of the bus in one direction, after its line code."""
        lane_gb_s = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
        return lane_gb_s[self.pcie_generation] * self.pcie_width * _GIGA

    def _flop_per_clock(self, operation: Operation) -> float | None:
        generation = self.generation
        fp32_share = 0.5 if self.half_rate_fp32 else 1.0
        return {
            "bf16_fp32": generation.flop_16 * fp32_share if generation.has_bf16 else None,
            "fp16_fp32": generation.flop_16 * fp32_share,
            "fp16_fp16": generation.flop_16,
            "fp8_fp32": generation.flop_8 and generation.flop_8 * fp32_share,
            "fp8_fp16": generation.flop_8,
            "int8_int32": generation.flop_int8,
        }[operation]
