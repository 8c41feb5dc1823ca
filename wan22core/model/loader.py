"""The components of a checkpoint, by stock ``from_pretrained`` or direct: local safetensors, complete or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from safetensors import SafetensorError
from transformers import T5TokenizerFast, UMT5EncoderModel

from wan22core.errors import CheckpointLayoutError, CorruptWeightsError, UnsupportedQuantizationError
from wan22core.model.building import source_of
from wan22core.model.direct_loader import load_direct, stored_tensors
from wan22core.model.layout import weight_files
from wan22core.model.linear_quantized import QUANTIZED_FROM
from wan22core.model.quantized_layers import layers_of, put_layers
from wan22core.model.staging import OnBytes
from wan22core.model.stored_precision import stored_precision
from wan22core.specs import BenchmarkSpec, Loader, Precision

CLASSES = {"transformer": WanTransformer3DModel, "text_encoder": UMT5EncoderModel, "vae": AutoencoderKLWan}
"""The classes of the components with weights."""

MODULES = tuple(CLASSES)
"""The components with weights."""

COMPONENTS = ("tokenizer", "scheduler", *MODULES)
"""Every component, in the order of loading."""

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}
"""The working precisions."""

_LOADING_FAULTS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def load_component(
    name: str, checkpoint: Path, spec: BenchmarkSpec, device: torch.device, on_bytes: OnBytes | None = None
) -> Any:
    """One of ``COMPONENTS``, modules in the recipe's precision and on the device, by the recipe's loader.

    A transformer in int8 or fp8 is quantized only where its files are: else ``quantize.put_in_force`` follows.
    ``on_bytes`` is told what was read, once by the stock loader and after each chunk by the direct one; what it raises
    ends the load. Raises ``CorruptWeightsError`` for files that can't be loaded completely,
    ``UnsupportedQuantizationError`` for files in int8 or fp8 where another precision is asked for, and
    ``CheckpointLayoutError`` for such files by the stock loader; out of memory passes through.
    """
    try:
        return _load(name, checkpoint / name, spec, device, on_bytes or _unheard)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CorruptWeightsError(
            f"The {name} in {checkpoint} can't be loaded: {error}",
            next_action=f"Run wan22 weights check {checkpoint}",
        ) from error


def file_bytes(checkpoint: Path) -> dict[str, int]:
    """Bytes of the weight files of each component."""
    return {name: sum(file.stat().st_size for file in weight_files(checkpoint / name)) for name in MODULES}


def require_no_other(folder: Path, held: Precision, precision: Precision) -> None:
    """The component in ``folder``, which was prepared in ``held``, can give ``precision``.

    Raises ``UnsupportedQuantizationError`` that names the source where it can't: no fallback goes there by itself.
    """
    if precision not in (held, Precision.NONE):
        raise UnsupportedQuantizationError(
            f"The {folder.name} in {folder.parent} was prepared in {held.value}, from which there is no way back to "
            f"{precision.value}.",
            next_action=f"Use {source_of(folder.parent)}, or ask for {held.value}.",
        )


def _load(name: str, folder: Path, spec: BenchmarkSpec, device: torch.device, on_bytes: OnBytes) -> Any:
    recipe = spec.recipe
    if name == "tokenizer":
        return T5TokenizerFast.from_pretrained(folder, local_files_only=True)
    if name == "scheduler":
        shift = spec.workload.flow_shift
        return UniPCMultistepScheduler.from_pretrained(folder, local_files_only=True, flow_shift=shift)
    precision: Precision = getattr(recipe, f"{name}_precision")
    held = stored_precision(folder)
    if held is not None:
        require_no_other(folder, held, precision)
        _require_direct(folder, held, recipe.loader)
        return load_direct(CLASSES[name], folder, QUANTIZED_FROM, device, on_bytes, held)
    dtype = _dtype(precision, folder)
    if recipe.loader is Loader.DIRECT:
        module = load_direct(CLASSES[name], folder, dtype, device, on_bytes)
    else:
        module = _whole(CLASSES[name], folder, device, dtype)
        on_bytes(sum(file.stat().st_size for file in weight_files(folder)))
    if name == "text_encoder" and precision in (Precision.INT8, Precision.FP8):
        put_layers(module, layers_of(module, precision), device)
    return module


def _require_direct(folder: Path, held: Precision, by: Loader) -> None:
    if by is Loader.STOCK:
        raise CheckpointLayoutError(
            f"The {folder.name} in {folder.parent} was prepared in {held.value}, which from_pretrained can't load.",
            next_action=f"Use a recipe with the direct loader, or {source_of(folder.parent)}.",
        )


def _unheard(_count: int) -> None:
    """Nobody asked for progress."""


def _dtype(precision: Precision, folder: Path) -> torch.dtype:
    """The dtype to load in; ``none`` is the checkpoint's own, which diffusers would take for fp32 whatever it is."""
    if precision is Precision.NONE:
        return stored_tensors(folder).own_dtype
    return DTYPES.get(precision, QUANTIZED_FROM)


def _whole(cls: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    module, info = cls.from_pretrained(
        str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
    )
    if wrong := [f"{len(info[key])} {key.replace('_', ' ')}" for key in _LOADING_FAULTS if info.get(key)]:
        raise ValueError(", ".join(wrong))  # the libraries only log this, and run on with values out of nowhere
    return module.to(device).eval()
