"""Peak device memory by stage: exact weights, activations in proportion to the shape, the allocator's slack.

The few factors are fitted on measured rows (``calibration.py``); ``docs/planning.md`` shows the errors.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from wan22core.planning import work
from wan22core.planning.configuration import Configuration, Mechanism
from wan22core.specs import CacheMethod, Precision, Workload

_MIB = 2**20
_BYTES_16, _BYTES_32 = 2, 4
_CHUNK_FRAMES = 4
_REALLOCATING = (Mechanism.GROUP_BLOCK, Mechanism.GROUP_LEAF)
"""Each block allocates and frees its weights, which scatters the free memory; slots that stay do not."""
_EMPTYING = (Mechanism.MODEL_OFFLOAD, Mechanism.BLOCK_STREAM)
"""Nothing of the denoise is left on the device, or reserved, when the decode begins."""
_HELD = {CacheMethod.FIRST_BLOCK: 3, CacheMethod.MAGNITUDE: 2}
"""16-bit tensors of tokens x width: the residuals and, of the first block, input or output."""
STAGES = ("load", "encode", "encode_image", "denoise", "decode")


class MemoryFactors(BaseModel):
    """What is fitted. Slack is what the allocator reserves beyond what is allocated, as a share of the activations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    eager_tensors: float
    """Activations of a forward, in 16-bit tensors of tokens x width."""
    compiled_tensors: float
    decoder_values_per_pixel: float
    """Values that the VAE's decoder holds for each pixel of a tile (of a frame, without tiles)."""
    eager_slack: float
    compiled_slack: float
    streamed_slack: float
    decoder_slack: float
    encoder_mib: float
    """Activations of the text encoder."""
    context_mib: float
    """CUDA context and libraries outside the allocator."""


class Peak(BaseModel):
    """One stage, MiB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allocated_mib: float
    reserved_mib: float
    process_mib: float


def peaks(configuration: Configuration, workload: Workload, factors: MemoryFactors) -> dict[str, Peak]:
    """The peaks of every stage. What an earlier stage reserved stays reserved, unless the mechanism frees it."""
    found: dict[str, Peak] = {}
    kept = 0.0
    for stage in STAGES:
        if stage == "encode_image" and not workload.image_to_video:
            continue
        allocated = _weights_mib(configuration, stage)
        activations, slack = _activations_mib(configuration, workload, stage, factors)
        reserved = allocated + activations * (1 + slack)
        if stage in ("denoise", "decode") and configuration.mechanism not in _EMPTYING:
            kept = reserved = max(reserved, kept)
        found[stage] = Peak(
            allocated_mib=allocated + activations,
            reserved_mib=reserved,
            process_mib=reserved + factors.context_mib,
        )
    return found


def _weights_mib(configuration: Configuration, stage: str) -> float:
    """Weights on the device during a stage. Streaming leaves as much behind as the parts outside the blocks take."""
    transformer = work.transformer_bytes(configuration.transformer)
    text, vae = work.text_encoder_bytes(configuration.text_encoder), work.vae_bytes(configuration.vae)
    outside, leaf = work.outside_blocks_bytes(), _BYTES_16 * work.LARGEST_LEAF_PARAMETERS
    blocks = 2 * _BYTES_16 * work.BLOCK_PARAMETERS
    slots = 2 * work.block_bytes(configuration.transformer)
    text_slots = work.text_encoder_slots_bytes(configuration.text_encoder)
    by_mechanism = {
        Mechanism.RESIDENT: transformer + text + vae,
        Mechanism.TEXT_ENCODER_FIRST: {"load": 0, "encode": text}.get(stage, transformer + vae),
        Mechanism.MODEL_OFFLOAD: {"load": 0, "encode": text, "denoise": transformer}.get(stage, vae),
        Mechanism.BLOCK_STREAM: {"load": 0, "encode": text_slots, "denoise": outside + slots}.get(stage, vae),
        Mechanism.GROUP_BLOCK: {"load": vae, "denoise": vae + outside + blocks}.get(stage, vae + outside),
        Mechanism.GROUP_LEAF: {"load": vae, "denoise": vae + leaf}.get(stage, vae + outside),
    }
    return by_mechanism[configuration.mechanism] / _MIB


def _activations_mib(
    configuration: Configuration, workload: Workload, stage: str, factors: MemoryFactors
) -> tuple[float, float]:
    """Activations of a stage, and the slack on them."""
    if stage == "load":
        return 0.0, 0.0
    if stage == "encode":
        quantized = configuration.text_encoder in (Precision.INT8, Precision.FP8)
        one_linear = _BYTES_16 * work.LARGEST_TEXT_LEAF_PARAMETERS * quantized  # brought back to 16 bits to be used
        return factors.encoder_mib + one_linear / _MIB, 0.0
    if stage == "denoise":
        tensors = factors.compiled_tensors if configuration.compiled else factors.eager_tensors
        slack = factors.compiled_slack if configuration.compiled else factors.eager_slack
        if configuration.mechanism in _REALLOCATING:
            slack = factors.streamed_slack
        tensors += _held_tensors(configuration, workload)
        return tensors * work.tensor_bytes(workload) / _MIB, slack
    return coder_mib(configuration, workload, stage, factors), factors.decoder_slack


def _held_tensors(configuration: Configuration, workload: Workload) -> int:
    """What diffusers' step caches keep from step to step, for each forward of one."""
    if configuration.step_cache is None:
        return 0
    return _HELD[configuration.step_cache.method] * (2 if workload.guidance > 1 else 1)


def coder_mib(configuration: Configuration, workload: Workload, stage: str, factors: MemoryFactors) -> float:
    """Activations of the VAE, MiB.

    The decoder holds one chunk of four frames at a time, so only the finished video grows with the frames.
    Encoding the start image is one frame through the smaller encoder, always in fp32: taken for a quarter of a chunk.
    """
    image = stage == "encode_image"
    precision = Precision.FP32 if image else work.vae_computes_in(configuration.vae)
    each = _BYTES_32 if precision is Precision.FP32 else _BYTES_16
    pixels = workload.width * workload.height
    if configuration.tile is not None:
        height, width, _, _ = configuration.tile
        pixels = min(height, workload.height) * min(width, workload.width)
    if image:
        return factors.decoder_values_per_pixel * pixels / _CHUNK_FRAMES * each / _MIB
    video = 3 * work.video_pixels(workload) * each
    return (factors.decoder_values_per_pixel * pixels * each + video) / _MIB
