"""Quantizing the transformer: whether a device can compute it, and putting it in force or finding that it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wan22core.errors import UnsupportedQuantizationError
from wan22core.model.linear_quantized import QUANTIZED_FROM, QuantizedLinear
from wan22core.model.loader import DTYPES
from wan22core.model.quantized_layers import LINEARS, Kind, held_precision, layers_of_block, quantized_modules
from wan22core.records import Progress
from wan22core.specs import Precision

Report = Callable[[Progress], None]


def kind_for(method: Precision, device: torch.device) -> type[QuantizedLinear]:
    """The layer that computes int8 or fp8 on ``device``.

    Raises ``UnsupportedQuantizationError`` with the reason of each that can't.
    """
    reasons = []
    for kind in LINEARS[method]:
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
    for method in LINEARS:
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

    int8 and fp8 replace its linears; where a prepared checkpoint brought them so they are in force already, and only
    the device is asked. Working precisions are cast while loading, so those are only held against what was loaded;
    fp16 then gets its accumulation. Raises ``UnsupportedQuantizationError`` for what the device does not compute, and
    for a transformer that was loaded in another precision than this one starts from.
    """
    held = held_precision(transformer)
    if held is not None:
        _require_in_force(transformer, held, precision, device)
    elif precision is not Precision.NONE:
        _require_loaded(transformer, precision)
    if held is None and precision in LINEARS:
        _quantize_blocks(transformer.blocks, kind_for(precision, device), device, report)
        return
    if precision is Precision.FP16 and fp16_accumulation:
        _accumulate_in_fp16(device)
    report(Progress(stage="quantize", fraction=1.0))


def _require_in_force(transformer: Any, held: Precision, precision: Precision, device: torch.device) -> None:
    """All of it is in ``held``, that is what was asked for, and ``device`` computes it."""
    asked = precision in (held, Precision.NONE)
    kinds = {type(module) for module in quantized_modules(transformer).values() if isinstance(module, QuantizedLinear)}
    if not asked or any(layers_of_block(block, kind) for block in transformer.blocks for kind in kinds):
        raise UnsupportedQuantizationError(
            f"The transformer is in {held.value} already, all of it or a part; {precision.value} starts from clean "
            "weights.",
            next_action="Load it again: what is quantized stays so.",
        )
    for kind in kinds:
        if (reason := kind.why_not(device)) is not None:
            raise UnsupportedQuantizationError(
                f"The transformer was prepared in {held.value}, which can't be computed on {device}: {reason}.",
                next_action="Run the checkpoint that it was prepared from: source_folder in its wan22.json.",
            )


def _quantize_blocks(blocks: nn.ModuleList, kind: type[QuantizedLinear], device: torch.device, report: Report) -> None:
    """Block by block, a linear at a time, the clean one dropped before the next: never two copies of more than one.

    What ``report`` raises ends it between two blocks; the transformer is then good for nothing.
    """
    found: list[tuple[Any, dict[str, Kind]]] = [(block, layers_of_block(block, kind)) for block in blocks]
    _require_shapes(found)
    total = sum(block.get_submodule(name).weight.nbytes for block, layers in found for name in layers)
    done = 0
    for block, layers in found:
        for name, layer in layers.items():
            clean = block.get_submodule(name)
            done += clean.weight.nbytes
            block.set_submodule(name, layer.of(clean, device))
        report(Progress(stage="quantize", fraction=done / total, bytes_done=done, bytes_total=total))


def _require_shapes(found: list[tuple[Any, dict[str, Kind]]]) -> None:
    """Before anything is replaced."""
    if not any(layers for _, layers in found):
        raise UnsupportedQuantizationError(
            "The transformer's blocks have no linear layers that could be quantized.", next_action="Use bf16."
        )
    for block, layers in found:
        for name, layer in layers.items():
            outputs, width = block.get_submodule(name).weight.shape
            if issubclass(layer, QuantizedLinear) and (outputs % layer.MULTIPLE or width % layer.MULTIPLE):
                raise UnsupportedQuantizationError(
                    f"{name} of {width} x {outputs} can't be a {layer.__name__}: "
                    f"both must be multiples of {layer.MULTIPLE}.",
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
