"""Which layers of a component int8 and fp8 replace, and by what: one place for loading, quantizing and preparing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wan22core.model.linear_fp8 import Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QuantizedLinear
from wan22core.model.weight_only import Fp8Embedding, Fp8WeightLinear, Int8Embedding, Int8WeightLinear, WeightOnly
from wan22core.specs import Precision

Kind = type[QuantizedLinear] | type[WeightOnly]

LINEARS: dict[Precision, tuple[type[QuantizedLinear], ...]] = {
    Precision.INT8: (Int8Linear,),
    Precision.FP8: (Fp8Linear, Fp8LinearByTensor),
}
"""The layers of each method; the first that a device can compute is taken, and files hold the first."""

_WEIGHT_LINEARS: dict[Precision, Kind] = {Precision.INT8: Int8WeightLinear, Precision.FP8: Fp8WeightLinear}
_EMBEDDINGS: dict[Precision, Kind] = {Precision.INT8: Int8Embedding, Precision.FP8: Fp8Embedding}
_PROMPT_ONLY = ("attn2.to_k", "attn2.to_v", "attn2.add_k_proj", "attn2.add_v_proj")
"""They see the prompt's 512 tokens and not the video's thousands: only their bytes are worth anything, so only their
weights are quantized, and their activations keep what they say."""
_TABLE = "shared"
"""The text encoder's embedding; ``encoder.embed_tokens`` is the same one."""


def quantized_linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The linears of a transformer block that are computed in int8 or fp8, by their name in it."""
    return {name: linear for name, linear in _linears(block).items() if name not in _PROMPT_ONLY}


def prompt_linears(block: nn.Module) -> dict[str, nn.Linear]:
    """Those of which only the weights are quantized."""
    return {name: linear for name, linear in _linears(block).items() if name in _PROMPT_ONLY}


def layers_of_block(block: nn.Module, kind: type[QuantizedLinear]) -> dict[str, Kind]:
    """What takes the place of the clean linears of a transformer block, by their name in it."""
    computed: dict[str, Kind] = dict.fromkeys(quantized_linears(block), kind)
    return computed | dict.fromkeys(prompt_linears(block), _WEIGHT_LINEARS[kind.PRECISION])


def layers_of(component: Any, precision: Precision) -> dict[str, Kind]:
    """What files in int8 or fp8 hold instead of a clean transformer's or text encoder's layers, by their name in it.

    The embedding is the last: on a device it is quantized when the linears have made room.
    """
    if hasattr(component, "blocks"):
        kind = LINEARS[precision][0]
        found = [(f"blocks.{number}", layers_of_block(block, kind)) for number, block in enumerate(component.blocks)]
        return {f"{block}.{name}": each for block, layers in found for name, each in layers.items()}
    linears: dict[str, Kind] = dict.fromkeys(
        (f"encoder.block.{name}" for name in _linears(component.encoder.block)), _WEIGHT_LINEARS[precision]
    )
    return linears | {_TABLE: _EMBEDDINGS[precision]}


def put_layers(component: Any, layers: Mapping[str, Kind], device: torch.device) -> None:
    """Replaces clean layers by ``layers``, each quantized on ``device``: a module on ``meta`` gets their shapes."""
    for name, kind in layers.items():
        component.set_submodule(name, kind.of(component.get_submodule(name), device))
        if name == _TABLE:
            component.encoder.embed_tokens = component.get_submodule(name)


def quantized_modules(component: nn.Module) -> dict[str, QuantizedLinear | WeightOnly]:
    """The layers of a component that are quantized, by their names; one that has two is there twice."""
    modules = component.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, QuantizedLinear | WeightOnly)}


def held_precision(component: nn.Module) -> Precision | None:
    """int8 or fp8 where layers of a component are quantized, None where none is."""
    return next((module.PRECISION for module in quantized_modules(component).values()), None)


def quantized_tensors(component: nn.Module) -> dict[str, torch.dtype]:
    """The dtypes of quantized weights and of their scales, by their names in the state: files hold them as they are."""
    return {
        f"{name}.{own}": getattr(module, own).dtype
        for name, module in quantized_modules(component).items()
        for own in (module.WEIGHT, "weight_scale")
    }


def working_dtype(component: nn.Module) -> torch.dtype:
    """What a component computes in: the dtype of its first floating parameter that is not quantized."""
    quantized = quantized_tensors(component)
    named = component.named_parameters()
    return next(each.dtype for name, each in named if each.is_floating_point() and name not in quantized)


def _linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
