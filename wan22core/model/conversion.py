"""What each tensor of a component becomes when a checkpoint is prepared: the same, cast, or quantized then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from wan22core.errors import UserInputError
from wan22core.model.direct_loader import StoredTensors, final_dtype, kept_in_fp32, stored_tensors, without_memory
from wan22core.model.linear_quantized import QUANTIZED_FROM
from wan22core.model.loader import CLASSES, require_no_other
from wan22core.model.loader import DTYPES as WORKING_DTYPES
from wan22core.model.quantized_layers import Kind, layers_of
from wan22core.model.staging import DTYPES
from wan22core.model.stored_precision import stored_precision
from wan22core.specs import Precision

_TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""Some text encoders are stored with their table under the second name, or under both; quantized it is there once."""
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Conversion:
    """One component of the source, and what each of its tensors is to become."""

    stored: StoredTensors
    dtypes: Mapping[str, torch.dtype]
    """What a tensor is cast to."""
    precision: Precision | None = None
    """int8 or fp8 where layers are quantized from there on."""
    layers: Mapping[str, Kind] = field(default_factory=dict)
    """Those, by their names in the component."""

    @property
    def name(self) -> str:
        return self.stored.folder.name

    @property
    def changes(self) -> bool:
        cast = any(DTYPES[tensor.dtype] is not self.dtypes[name] for name, tensor in self.stored.all.items())
        return cast or bool(self.layers)

    @property
    def main_dtype(self) -> str:
        """The name of the dtype that most tensors are cast to, as configs have it."""
        return str(Counter(self.dtypes.values()).most_common(1)[0][0]).removeprefix("torch.")

    @property
    def tensor_bytes(self) -> int:
        """Of all tensors as they are to be."""
        return sum(self._bytes_of(name) for name in self.stored.all if not self._is_second(name))

    def written(self, name: str, clean: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the file holds for a ``clean`` tensor of the source that was cast."""
        kind = self._kind_of(name)
        if self._is_second(name):
            return {}
        if kind is None:
            return {name: clean}
        layer = _TIED.get(name, name).removesuffix(".weight")
        values, scale = kind.quantize(clean)
        return {f"{layer}.{kind.WEIGHT}": values, f"{layer}.weight_scale": scale}

    def _bytes_of(self, name: str) -> int:
        tensor = self.stored.all[name]
        if self._kind_of(name) is None:
            return tensor.elements * self.dtypes[name].itemsize
        return tensor.elements + _SCALE_BYTES * tensor.shape[0]

    def _kind_of(self, name: str) -> Kind | None:
        known = _TIED.get(name, name)
        return self.layers.get(known.removesuffix(".weight")) if known.endswith(".weight") else None

    def _is_second(self, name: str) -> bool:
        """Whether it is the other name of a table that is stored twice and quantized once."""
        return bool(self.layers) and _TIED.get(name) in self.stored.all


def conversion_to(precision: Precision, folder: Path) -> Conversion:
    """Of the component in ``folder``, as a load in ``precision`` casts it and what follows quantizes it.

    Raises ``CorruptWeightsError`` for files that can't be understood, ``UnsupportedQuantizationError`` for one that was
    quantized to something else, and ``UserInputError`` for a VAE in int8 or fp8.
    """
    stored, held = stored_tensors(folder), stored_precision(folder)
    own_dtypes = {name: DTYPES[tensor.dtype] for name, tensor in stored.all.items()}
    if held is not None:
        require_no_other(folder, held, precision)
    if precision is Precision.NONE or held is not None:
        return Conversion(stored, own_dtypes)
    dtype = WORKING_DTYPES.get(precision, QUANTIZED_FROM)
    kept = kept_in_fp32(CLASSES[folder.name], dtype)
    dtypes = {name: final_dtype(name, own, dtype, kept) for name, own in own_dtypes.items()}
    if precision in WORKING_DTYPES:
        return Conversion(stored, dtypes)
    return Conversion(stored, dtypes, precision, _layers(folder, precision))


def _layers(folder: Path, precision: Precision) -> dict[str, Kind]:
    """Of the module that the component's config describes, built without memory."""
    if folder.name == "vae":
        raise UserInputError(f"The VAE is not run in {precision.value}.", next_action="Use none, bf16 or fp16 for it.")
    return layers_of(without_memory(CLASSES[folder.name], folder, QUANTIZED_FROM), precision)
