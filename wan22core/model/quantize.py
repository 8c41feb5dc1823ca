"""Quantizing the transformer: which of its linears, to what, and whether a device can compute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wan22core.errors import UnsupportedQuantizationError
from wan22core.model.linear_fp8 import Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QuantizedLinear
from wan22core.model.loader import DTYPES, QUANTIZED_FROM
from wan22core.records import Progress
from wan22core.specs import Precision

Report = Callable[[Progress], None]

_KINDS: dict[Precision, tuple[type[QuantizedLinear], ...]] = {
    Precision.INT8: (Int8Linear,),
    Precision.FP8: (Fp8Linear, Fp8LinearByTensor),
}
"""The layers of each method; the first that a device can compute is taken."""

_PROMPT_ONLY = ("attn2.to_k", "attn2.to_v", "attn2.add_k_proj", "attn2.add_v_proj")
"""They see the prompt's 512 tokens and not the video's thousands: docs/quantization.md has what each way costs."""


def quantized_linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The linears of a transformer block that are quantized, by their name in it: the one place that decides it."""
    linears = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in linears.items() if name not in _PROMPT_ONLY}


def kind_for(method: Precision, device: torch.device) -> type[QuantizedLinear]:
    """The layer that computes int8 or fp8 on ``device``.

    Raises ``UnsupportedQuantizationError`` with the reason of each that can't.
    """
    reasons = []
    for kind in _KINDS[method]:
        reason = kind.why_not(device)
        if reason is None:
            return kind
        reasons.append(reason)
    raise UnsupportedQuantizationError(
        f"The transformer can't be quantized to {method.value} on {device}: {'; '.join(reasons)}.",
        next_action=f"Use one of {', '.join(each.value for each in DTYPES)}, or another device.",
    )


def supported(device: torch.device) -> dict[Precision, str | None]:
    """Each precision with None where ``device`` computes it, else with why not; found by tiny products on it."""
    found: dict[Precision, str | None] = {}
    for precision, dtype in DTYPES.items():
        found[precision] = _why_no_product(dtype, device)
    for method in _KINDS:
        try:
            kind_for(method, device)
            found[method] = None
        except UnsupportedQuantizationError as error:
            found[method] = error.message
    return found


def put_in_force(
    transformer: Any, precision: Precision, device: torch.device, report: Report, *, fp16_accumulation: bool = False
) -> None:
    """Makes the loaded ``transformer`` compute in ``precision`` on ``device``.

    int8 and fp8 replace its linears. Working precisions are cast while loading, so those are only held against what was
    loaded; fp16 then gets its accumulation. Raises ``UnsupportedQuantizationError`` for what the device does not
    compute, and for a transformer that was loaded in another precision than this one starts from.
    """
    if precision is not Precision.NONE:
        _require_loaded(transformer, precision)
    if precision in _KINDS:
        _quantize_blocks(transformer.blocks, kind_for(precision, device), device, report)
        return
    if precision is Precision.FP16 and fp16_accumulation:
        _accumulate_in_fp16(device)
    report(Progress(stage="quantize", fraction=1.0))


def _quantize_blocks(blocks: nn.ModuleList, kind: type[QuantizedLinear], device: torch.device, report: Report) -> None:
    """Block by block, a linear at a time, the clean one dropped before the next: never two copies of more than one.

    What ``report`` raises ends it between two blocks; the transformer is then good for nothing.
    """
    found = [(block, quantized_linears(block)) for block in blocks]
    _require_shapes(found, kind)
    total = sum(linear.weight.nbytes for _, linears in found for linear in linears.values())
    done = 0
    while found:
        block, linears = found.pop(0)
        while linears:
            name, linear = linears.popitem()
            done += linear.weight.nbytes
            block.set_submodule(name, kind.of(linear, device))
        report(Progress(stage="quantize", fraction=done / total, bytes_done=done, bytes_total=total))


def _require_shapes(found: list[tuple[nn.Module, dict[str, nn.Linear]]], kind: type[QuantizedLinear]) -> None:
    """Before anything is replaced."""
    linears = [(name, linear) for _, named in found for name, linear in named.items()]
    if not linears:
        raise UnsupportedQuantizationError(
            "The transformer's blocks have no linear layers that could be quantized.",
            next_action="Load it again: a quantized one is not quantized twice.",
        )
    for name, linear in linears:
        if any(side % kind.MULTIPLE for side in linear.weight.shape):
            raise UnsupportedQuantizationError(
                f"{name} of {linear.in_features} x {linear.out_features} can't be a {kind.__name__}: "
                f"both must be multiples of {kind.MULTIPLE}.",
                next_action="Use bf16.",
            )


def _require_loaded(transformer: Any, precision: Precision) -> None:
    needed = DTYPES.get(precision, QUANTIZED_FROM)
    if transformer.dtype is not needed:
        raise UnsupportedQuantizationError(
            f"The transformer was loaded in {transformer.dtype}; {precision.value} starts from {needed}, "
            "cast from clean weights while loading.",
            next_action=f"Load again with transformer_precision {precision.value}.",
        )


def _accumulate_in_fp16(device: torch.device) -> None:
    """For every fp16 product of this process; read back."""
    matmul = torch.backends.cuda.matmul
    if device.type == "cuda":
        matmul.allow_fp16_accumulation = True
    if device.type != "cuda" or not matmul.allow_fp16_accumulation:
        raise UnsupportedQuantizationError(
            f"fp16 products can't be accumulated in fp16 on {device}: torch has a switch for CUDA devices only.",
            next_action="Leave fp16_accumulation off, or use bf16.",
        )


def _why_no_product(dtype: torch.dtype, device: torch.device) -> str | None:
    try:
        ones = torch.ones(32, 32, dtype=dtype, device=device)
        right = bool((ones @ ones == 32).all())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return f"torch {torch.__version__} has no product in {dtype} for {device}: {str(error).splitlines()[0]}"
    return None if right else f"the products of torch {torch.__version__} in {dtype} are wrong on {device}"
