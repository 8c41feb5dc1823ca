"""What a component that was prepared in int8 or fp8 looks like on disk. Reads configs and headers only.

Its ``config.json`` says so under a name that diffusers knows: it refuses such a component instead of loading values
without their scales. Beside the quantized weight of a layer (rows, width) stands ``weight_scale`` (rows, 1) in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wan22core.model.safetensors_header import Tensor, parse_json
from wan22core.specs import Precision

_KEY, _METHOD, _PRECISION = "quantization_config", "quant_method", "precision"
_OURS = "wan22"
_SCALE = ".weight_scale"
_STORED_AS = {Precision.INT8: "I8", Precision.FP8: "F8_E4M3"}
"""How safetensors calls the dtypes of the quantized values."""


def config_entry(precision: Precision) -> dict[str, Any]:
    """What ``config.json`` of a component in ``precision`` has beside the model's own settings."""
    return {_KEY: {_METHOD: _OURS, _PRECISION: precision.value}}


def precision_in(config: Mapping[str, Any]) -> Precision | None:
    """int8 or fp8 where a config says that the component was prepared in it."""
    entry = config.get(_KEY)
    if not isinstance(entry, dict) or entry.get(_METHOD) != _OURS:
        return None
    return next((each for each in _STORED_AS if each.value == entry.get(_PRECISION)), None)


def stored_precision(folder: Path) -> Precision | None:
    """The same, of the component in ``folder``. Raises ``OSError`` or ``ValueError`` where its config can't be read."""
    return precision_in(parse_json((folder / "config.json").read_bytes()))


def is_scale(name: str) -> bool:
    """Whether a tensor holds scales, which are no parameters of the model."""
    return name.endswith(_SCALE)


def mismatch(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    """What a component's config and the headers of its files disagree on; None where they agree."""
    precision = precision_in(config)
    quantized = {name: each for name, each in tensors.items() if each.dtype in _STORED_AS.values()}
    if precision is None:
        strange = next((name for name in tensors if name in quantized or is_scale(name)), None)
        return f"holds {strange}, and its config names no quantization that wan22 knows" if strange else None
    if not quantized:
        return f"holds nothing in {precision.value}, which its config says it was prepared in"
    if other := next((name for name, each in quantized.items() if each.dtype != _STORED_AS[precision]), None):
        return f"holds {other} as {quantized[other].dtype}, and its config says {precision.value}"
    expected = {f"{name.rpartition('.')[0]}{_SCALE}": (*each.shape[:1], 1) for name, each in quantized.items()}
    found = {name: each.shape for name, each in tensors.items() if is_scale(name) and each.dtype == "F32"}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"holds a quantized weight and the scales {wrong[0]} that do not belong together" if wrong else None
