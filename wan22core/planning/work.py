"""What the model has to do and to hold, counted from its shapes: parameters, bytes and FLOP. Exact but for the VAE's.

Sources: the configurations in ``model/architecture.py``; a multiply-add counts two FLOP.
"""

from __future__ import annotations

from wan22core.specs import Precision, Workload

TRANSFORMER_PARAMETERS = 4_999_787_712
TEXT_ENCODER_PARAMETERS = 5_680_910_336
VAE_PARAMETERS = 704_688_668
"""Asserted against the classes themselves by the tests of ``model/``."""

WIDTH, LAYERS, FFN_WIDTH = 3072, 30, 14336
PROMPT_TOKENS = 512
TEXT_LAYERS = 24
_TEXT_WIDTH, _TEXT_FFN_WIDTH, _TEXT_ROWS = 4096, 10_240, 256_384
_TEXT_EMBEDDING = _TEXT_ROWS * _TEXT_WIDTH
LARGEST_TEXT_LEAF_PARAMETERS = _TEXT_WIDTH * _TEXT_FFN_WIDTH
_TEXT_CLEAN = TEXT_LAYERS * (2 * _TEXT_WIDTH + 32 * 64) + _TEXT_WIDTH
"""Norms and the tables of relative positions: 16 bits in int8 and fp8 too."""
_TEXT_SCALES = _TEXT_ROWS + TEXT_LAYERS * (5 * _TEXT_WIDTH + 2 * _TEXT_FFN_WIDTH)
"""Rows of its embedding and linears: one fp32 scale each."""
_IN_FP32 = (256 * WIDTH + WIDTH) + (WIDTH * WIDTH + WIDTH) + LAYERS * 8 * WIDTH + 2 * WIDTH
"""Time embedder, scale and shift tables and the affine norm of each block stay fp32 in diffusers' 16-bit models."""

_SQUARE = WIDTH * WIDTH
_QUANTIZABLE = LAYERS * (8 * _SQUARE + 2 * WIDTH * FFN_WIDTH)
"""The blocks' linears. Of the two that see the prompt's 512 tokens only (keys and values of the cross-attention) the
weights alone are quantized."""
_SCALES = LAYERS * (8 * WIDTH + FFN_WIDTH + WIDTH)
"""Rows of those linears: one fp32 scale each."""
PROMPT_LINEARS_SAVE_BYTES = LAYERS * 2 * (_SQUARE - 4 * WIDTH)
"""What those two are smaller in int8 and fp8 than in 16 bits, scales counted."""

BLOCK_PARAMETERS = 8 * (_SQUARE + WIDTH) + 2 * WIDTH * FFN_WIDTH + FFN_WIDTH + WIDTH + 4 * WIDTH + 8 * WIDTH
"""One transformer block: two attentions of four linears, the feed-forward, the norms of queries and keys."""
LARGEST_LEAF_PARAMETERS = WIDTH * FFN_WIDTH + FFN_WIDTH

_BYTES = {Precision.FP32: 4, Precision.NONE: 4, Precision.BF16: 2, Precision.FP16: 2}


def transformer_bytes(precision: Precision) -> int:
    """Bytes of the transformer's weights on the device."""
    if precision in _BYTES:
        each = _BYTES[precision]
        return each * TRANSFORMER_PARAMETERS + max(0, 4 - each) * _IN_FP32
    rest = TRANSFORMER_PARAMETERS - _IN_FP32 - _QUANTIZABLE
    return _QUANTIZABLE + 4 * _SCALES + 2 * rest + 4 * _IN_FP32


def text_encoder_bytes(precision: Precision) -> int:
    """Bytes of the text encoder's weights."""
    if precision in (Precision.INT8, Precision.FP8):
        return TEXT_ENCODER_PARAMETERS + _TEXT_CLEAN + 4 * _TEXT_SCALES
    return _BYTES[precision] * TEXT_ENCODER_PARAMETERS


def vae_bytes(precision: Precision) -> int:
    """Bytes of the VAE's weights."""
    return _BYTES[precision] * VAE_PARAMETERS


def vae_computes_in(precision: Precision) -> Precision:
    """FP32 or BF16, the two that were measured: the hub's own VAE is fp32, and fp16 has the width and rate of bf16."""
    return Precision.FP32 if _BYTES[precision] == _BYTES[Precision.FP32] else Precision.BF16


def outside_blocks_bytes() -> int:
    """Bytes of the 16-bit transformer's parts that stay on the device when its blocks are streamed."""
    return transformer_bytes(Precision.BF16) - 2 * LAYERS * BLOCK_PARAMETERS


def block_bytes(precision: Precision) -> int:
    """Bytes of one block of the transformer."""
    return (transformer_bytes(precision) - outside_blocks_bytes()) // LAYERS


def text_encoder_slots_bytes(precision: Precision) -> int:
    """Bytes of the text encoder on the device when its blocks are streamed: the embedding and two blocks."""
    whole = text_encoder_bytes(precision)
    if precision in (Precision.INT8, Precision.FP8):
        embedding = _TEXT_EMBEDDING + 4 * _TEXT_ROWS
    else:
        embedding = _BYTES[precision] * _TEXT_EMBEDDING
    return embedding + 2 * (whole - embedding) // TEXT_LAYERS


def linear_flop(workload: Workload) -> float:
    """FLOP of the linears of one forward of the transformer."""
    tokens = workload.tokens
    per_token = 6 * _SQUARE + 2 * WIDTH * FFN_WIDTH
    return 2.0 * LAYERS * (tokens * per_token + PROMPT_TOKENS * 2 * _SQUARE)


def attention_flop(workload: Workload) -> float:
    """FLOP of self- and cross-attention of one forward."""
    tokens = workload.tokens
    return 4.0 * LAYERS * WIDTH * tokens * (tokens + PROMPT_TOKENS)


def tensor_bytes(workload: Workload) -> float:
    """Bytes of one 16-bit activation (tokens x width): the unit of memory traffic and of activation memory."""
    return 2.0 * WIDTH * workload.tokens


def forwards(workload: Workload) -> int:
    """Forwards of the transformer for all steps: with guidance above 1 a step takes two."""
    return workload.steps * (2 if workload.guidance > 1 else 1)


def text_encoder_flop(workload: Workload) -> float:
    """FLOP of encoding the prompt, and with guidance the negative one."""
    prompts = 2 if workload.guidance > 1 else 1
    return 2.0 * (TEXT_ENCODER_PARAMETERS - _TEXT_EMBEDDING) * PROMPT_TOKENS * prompts


def decoder_flop_per_pixel() -> float:
    """FLOP of the VAE's decoder for one pixel of one frame, all convolutions counted (3x3x3 in residual blocks).

    The decoder works at 1/16, 1/8, 1/4 and 1/2 of the side with 1024, 1024, 512 and 256 channels, three residual blocks
    each and two more at the bottom, and at 1/4, 1/2, 1 and 1 of the frames.
    """
    kernel, flat = 2 * 27, 2 * 9

    def blocks(inside: int, outside: int, count: int) -> int:
        return kernel * (inside * outside + (2 * count - 1) * outside * outside)

    bottom = blocks(1024, 1024, 5) / 1024
    eighth = (blocks(1024, 1024, 3) + flat * 1024 * 1024) / 128
    quarter = (blocks(1024, 512, 3) + flat * 1024 * 1024) / 16
    half = (blocks(512, 256, 3) + flat * 512 * 512 + kernel * 256 * 12) / 4
    return bottom + eighth + quarter + half


def video_pixels(workload: Workload) -> int:
    """Pixels of all frames."""
    return workload.width * workload.height * workload.frames
