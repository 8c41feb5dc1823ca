"""Time by stage: FLOP and bytes over what the card can do at most, times efficiencies that were measured.

A step is the linears and the attention at the tensor cores' rate for their precision and accumulator, and everything
else at the memory's rate; a decode is convolutions and memory traffic. ``docs/planning.md`` has the errors.
"""

from __future__ import annotations

from math import ceil

from pydantic import BaseModel, ConfigDict

from wan22core.hardware.gpu_spec import GpuSpec, Operation
from wan22core.planning import work
from wan22core.planning.configuration import STREAMED, Configuration, Mechanism
from wan22core.specs import Precision, Workload

SPREAD = 1.25
"""Low is mid / 1.25, high mid x 1.25: a factor of 1.56 between them."""
_WRITE_S_PER_MEGAPIXEL = 0.04
"""Encoding the video on the CPU (libx264, two cores); it is small beside the rest."""
ASSUMED, GIVEN = "assumed", "given"
"""Sources of a rate; the third is ``measured`` and the day."""
_TF32_SHARE = 0.5  # fp32 convolutions run as TF32, at half the 16-bit rate


class Estimate(BaseModel):
    """Seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    mid: float
    high: float

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(low=self.low + other.low, mid=self.mid + other.mid, high=self.high + other.high)

    @classmethod
    def around(cls, seconds: float, spread: float = SPREAD) -> Estimate:
        """An interval around a best guess: the model's own, or one of another factor each way."""
        return cls(low=seconds / spread, mid=seconds, high=seconds * spread)


class Rates(BaseModel):
    """Rates of the host, bytes a second, and where they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    disk_bytes_s: float = 2.0e9
    """Reading the checkpoint; the default is an NVMe disk as cloud machines have it."""
    pageable_bytes_s: float = 4.4e9
    """Bytes that arrive on the device from pageable memory, in the precision of their file."""
    cast_bytes_s: float = 4.4e9
    """The same for weights that are cast from fp32 to 16 bit on the way, as stock diffusers does."""
    pinned_bytes_s: float | None = None
    """From page-locked memory to this card; None takes the card's bus and the share of it that an H100 reached."""
    disk_source: str = ASSUMED
    """``assumed``, ``given``, or ``measured`` and the day."""
    copy_source: str = ASSUMED
    """The same for the copies."""

    @property
    def source(self) -> str:
        """Both sources in a few words."""
        if self.disk_source == self.copy_source:
            return self.disk_source
        return f"disk {self.disk_source}, copies {self.copy_source}"


class TimeFactors(BaseModel):
    """Efficiencies, as shares of the card's own peaks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear: float = 768 / 989.4
    """Matrix products on an H100: 768 TFLOP/s measured of 989 (cards with full-rate fp32 accumulation)."""
    attention_native: float
    attention_cudnn: float = 615 / 989.4
    """cuDNN attention at 11,440 tokens on the same card, measured alone."""
    half_rate_linear: float = 0.93
    """Cards whose tensor cores accumulate in fp32 at half rate come nearer to their lower peak."""
    half_rate_attention: float = 0.93
    """FlashAttention 2 reaches 165 of 165 TFLOP/s on an RTX 4090 by the SageAttention paper (arXiv:2410.02367)."""
    bandwidth: float = 2974 / 3352
    """Device copy on an H100."""
    pcie: float = 55.1 / 63.0
    """Pinned host to device on the same machine."""
    eager_passes: float
    """Times that a 16-bit activation (tokens x width) is read or written in a layer beside the products."""
    compiled_passes: float
    stream_share: float
    """Share of the shorter of transfer and computation that streaming does not hide."""
    decode_bytes_per_pixel: dict[Precision, float]
    """Memory traffic of the decoder for one pixel of one frame."""
    tile_pixels: float
    """A tile of that many pixels takes twice the time of its share."""


class TimeModel:
    """Predictions for one card."""

    def __init__(self, spec: GpuSpec, factors: TimeFactors, rates: Rates | None = None) -> None:
        self.spec = spec
        self.factors = factors
        self.rates = rates or Rates()

    def stages(self, configuration: Configuration, workload: Workload) -> dict[str, Estimate] | None:
        """Seconds of each stage; None where the card has no instruction for it, or the table no rate."""
        step = self.step_s(configuration, workload)
        if step is None or self._tensor_rate("bf16_fp32" if self._has_bf16 else "fp16_fp32") is None:
            return None
        found = {"load": self._load_s(configuration), "encode": self._encode_s(configuration, workload)}
        if workload.image_to_video:
            found["encode_image"] = self._decode_pixels_s(Precision.FP32, workload.width * workload.height)
        found["denoise"] = step * workload.steps
        found["decode"] = self.decode_s(configuration, workload)
        for stage in _bringing(configuration.mechanism):
            found[stage] += _component_bytes(configuration)[stage] / self.rates.pageable_bytes_s
        found["write"] = _WRITE_S_PER_MEGAPIXEL * work.video_pixels(workload) / 1e6
        return {stage: Estimate.around(seconds) for stage, seconds in found.items()}

    def given_stages(self, mechanism: Mechanism) -> frozenset[str]:
        """Stages that count with a rate given by hand.

        Loading has the disk's and the copies'; a placement that brings components to the device has the copies' in
        the stages that it brings them for. Blocks that stream have the bus's, which nobody gives.
        """
        if self.rates.copy_source == GIVEN:
            return _bringing(mechanism) | {"load"}
        return frozenset({"load"} if self.rates.disk_source == GIVEN else ())

    def step_s(self, configuration: Configuration, workload: Workload) -> float | None:
        """One denoising step, the mean of all: with guidance two forwards.

        None where the transformer's products have no rate.
        """
        operation = _operation(configuration, has_bf16=self._has_bf16)
        linear_rate = None if operation is None else self._tensor_rate(operation)
        attention_peak = self.spec.peak_flop_s("bf16_fp32" if self._has_bf16 else "fp16_fp32")
        if linear_rate is None or attention_peak is None:
            return None
        factors = self.factors
        attention = factors.attention_cudnn if configuration.attention == "cudnn" else factors.attention_native
        share = factors.half_rate_attention if self.spec.half_rate_fp32 else attention
        passes = factors.compiled_passes if configuration.compiled else factors.eager_passes
        computed = (
            work.linear_flop(workload) / linear_rate
            + work.attention_flop(workload) / (attention_peak * share)
            + passes * work.LAYERS * work.tensor_bytes(workload) / self._memory_rate
        )
        cache = configuration.step_cache
        if cache is not None and (share_computed := cache.computed_share(workload)) is not None:
            computed *= share_computed
        if configuration.mechanism in STREAMED:
            bus_bytes_s = self.rates.pinned_bytes_s or self.spec.pcie_bytes_s * factors.pcie
            moved = work.LAYERS * work.block_bytes(configuration.transformer) / bus_bytes_s
            computed = max(computed, moved) + factors.stream_share * min(computed, moved)
        return computed * work.forwards(workload) / workload.steps

    def decode_s(self, configuration: Configuration, workload: Workload) -> float:
        """All frames; tiles overlap, and small ones use the card badly."""
        pixels = float(work.video_pixels(workload))
        if configuration.tile is not None:
            height, width, stride_height, stride_width = configuration.tile
            covered = _covered(workload.height, height, stride_height) * _covered(workload.width, width, stride_width)
            tile = min(height, workload.height) * min(width, workload.width)
            pixels = covered * workload.frames * (1 + self.factors.tile_pixels / tile)
        return self._decode_pixels_s(work.vae_computes_in(configuration.vae), pixels)

    def _decode_pixels_s(self, precision: Precision, pixels: float) -> float:
        """``precision`` is one of those that ``work.vae_computes_in`` gives."""
        rate = self._tensor_rate("bf16_fp32" if self._has_bf16 else "fp16_fp32") or float("inf")
        if precision is Precision.FP32:
            rate *= _TF32_SHARE
        traffic = self.factors.decode_bytes_per_pixel[precision]
        return pixels * (work.decoder_flop_per_pixel() / rate + traffic / self._memory_rate)

    def _load_s(self, configuration: Configuration) -> float:
        """The files as the hub has them (transformer and VAE in fp32), then what is placed on the device."""
        text = work.text_encoder_bytes(Precision.BF16)
        files = work.transformer_bytes(Precision.FP32) + text + work.vae_bytes(Precision.FP32)
        placed_s = (
            work.transformer_bytes(configuration.transformer) / self._placing_bytes_s(configuration.transformer)
            + work.vae_bytes(configuration.vae) / self._placing_bytes_s(configuration.vae)
            + text / self.rates.pageable_bytes_s
        )
        return files / self.rates.disk_bytes_s + placed_s

    def _placing_bytes_s(self, precision: Precision) -> float:
        """The hub's transformer and VAE are fp32: in any other precision they are cast first."""
        as_it_is = precision in (Precision.FP32, Precision.NONE)
        return self.rates.pageable_bytes_s if as_it_is else self.rates.cast_bytes_s

    def _encode_s(self, configuration: Configuration, workload: Workload) -> float:
        """Reading the weights once a prompt."""
        size = work.text_encoder_bytes(configuration.text_encoder)
        if configuration.text_encoder in (Precision.INT8, Precision.FP8):
            size += 2 * work.text_encoder_bytes(Precision.BF16)  # written in 16 bits, and read
        rate = self._tensor_rate("bf16_fp32" if self._has_bf16 else "fp16_fp32") or float("inf")
        return work.text_encoder_flop(workload) / rate + 2 * size / self._memory_rate

    @property
    def _has_bf16(self) -> bool:
        return self.spec.generation.has_bf16

    @property
    def _memory_rate(self) -> float:
        return self.spec.bandwidth_bytes_s * self.factors.bandwidth

    def _tensor_rate(self, operation: Operation) -> float | None:
        peak = self.spec.peak_flop_s(operation)
        share = self.factors.half_rate_linear if self.spec.half_rate_fp32 else self.factors.linear
        return None if peak is None else peak * share


def _bringing(mechanism: Mechanism) -> frozenset[str]:
    """Stages that bring their component to the device for each video; blocks that stream come with each step."""
    if mechanism is Mechanism.RESIDENT:
        return frozenset()
    return frozenset({"encode", "decode"} if mechanism in STREAMED else {"encode", "denoise", "decode"})


def _component_bytes(configuration: Configuration) -> dict[str, int]:
    """What each stage computes with."""
    return {
        "encode": work.text_encoder_bytes(configuration.text_encoder),
        "denoise": work.transformer_bytes(configuration.transformer),
        "decode": work.vae_bytes(configuration.vae),
    }


def _operation(configuration: Configuration, *, has_bf16: bool) -> Operation | None:
    """Operands and accumulator of the transformer's linears; without bf16 the card computes in fp16.

    None in fp32, which the table of cards has no rate for.
    """
    if configuration.transformer in (Precision.FP32, Precision.NONE):
        return None
    if configuration.transformer is Precision.FP8:
        return "fp8_fp32"
    if configuration.transformer is Precision.INT8:
        return "int8_int32"
    if configuration.fp16_accumulation:
        return "fp16_fp16"
    return "bf16_fp32" if has_bf16 and configuration.transformer is not Precision.FP16 else "fp16_fp32"


def _covered(side: int, tile: int, stride: int) -> int:
    """Pixels of one side that all tiles cover together; diffusers starts one every ``stride`` and cuts at the edge."""
    return sum(min(tile, side - start) for start in (index * stride for index in range(ceil(side / stride))))
