"""The components of a checkpoint by stock ``from_pretrained``: local files, safetensors, complete or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from safetensors import SafetensorError
from transformers import T5TokenizerFast, UMT5EncoderModel

from wan22core.errors import CorruptWeightsError, MissingDependencyError, UserInputError
from wan22core.specs import BenchmarkSpec, Precision, Recipe

MODULES = ("transformer", "text_encoder", "vae")
"""The components with weights."""

COMPONENTS = ("tokenizer", "scheduler", *MODULES)
"""Every component, in the order of loading."""

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}
"""The working precisions."""

_QUANTIZED_FROM = torch.bfloat16  # int8 and fp8 start from clean bf16 weights
_LOADING_FAULTS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def load_component(name: str, checkpoint: Path, spec: BenchmarkSpec, device: torch.device) -> Any:
    """One of ``COMPONENTS``, modules in the recipe's precision and on the device.

    Raises ``CorruptWeightsError`` for files that can't be loaded completely; out of memory passes through.
    """
    try:
        return _load(name, str(checkpoint / name), spec, device)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CorruptWeightsError(
            f"The {name} in {checkpoint} can't be loaded: {error}",
            next_action=f"Run wan22 weights check {checkpoint}",
        ) from error


def file_bytes(checkpoint: Path) -> dict[str, int]:
    """Bytes of the weight files of each component."""
    return {name: sum(file.stat().st_size for file in (checkpoint / name).glob("*.safetensors")) for name in MODULES}


def active_attention_backend() -> str:
    """The backend that diffusers dispatches attention to; it is global to the process."""
    return str(_AttentionBackendRegistry.get_active_backend()[0].value)


def apply_recipe(transformer: Any, vae: Any, recipe: Recipe) -> None:
    """What a recipe asks for besides precisions; where it asks for stock behaviour nothing is touched.

    Raises ``UserInputError`` for an attention backend that diffusers does not know, ``MissingDependencyError`` for one
    that can't run here.
    """
    if recipe.vae_tiling:
        vae.enable_tiling()
    if recipe.attention_backend == active_attention_backend():
        return
    try:
        transformer.set_attention_backend(recipe.attention_backend)
    except ValueError as error:
        raise UserInputError(
            f"There is no attention backend {recipe.attention_backend!r}: {error}",
            next_action="Use native, or another name of diffusers' list.",
        ) from error
    except (RuntimeError, ImportError) as error:
        raise MissingDependencyError(
            f"The attention backend {recipe.attention_backend!r} can't be used here: {error}",
            next_action="Install what it needs, or use native.",
        ) from error


def _load(name: str, folder: str, spec: BenchmarkSpec, device: torch.device) -> Any:
    recipe = spec.recipe
    if name == "tokenizer":
        return T5TokenizerFast.from_pretrained(folder, local_files_only=True)
    if name == "scheduler":
        shift = spec.workload.flow_shift
        return UniPCMultistepScheduler.from_pretrained(folder, local_files_only=True, flow_shift=shift)
    if name == "text_encoder":
        kind: Any = _dtype(recipe.text_encoder_precision) or "auto"
        return _whole(UMT5EncoderModel, folder, device, dtype=kind)
    if name == "vae":
        return _whole(AutoencoderKLWan, folder, device, torch_dtype=_dtype(recipe.vae_precision))
    return _whole(WanTransformer3DModel, folder, device, torch_dtype=_dtype(recipe.transformer_precision))


def _dtype(precision: Precision) -> torch.dtype | None:
    """The dtype to load in; None keeps the checkpoint's own."""
    return None if precision is Precision.NONE else DTYPES.get(precision, _QUANTIZED_FROM)


def _whole(cls: Any, folder: str, device: torch.device, **kind: Any) -> Any:
    module, info = cls.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **kind
    )
    if wrong := [f"{len(info[key])} {key.replace('_', ' ')}" for key in _LOADING_FAULTS if info.get(key)]:
        raise ValueError(", ".join(wrong))  # the libraries only log this, and run on with values out of nowhere
    return module.to(device).eval()
