"""Layers of which only the weights are quantized: fewer bytes to read and to hold, products in the working precision.

For weights that are read more than they are computed with: those of the text encoder, which works once a video, and in
the transformer the keys and values of the prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional

from wan22core.model.linear_fp8 import Fp8Linear
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QUANTIZED_FROM
from wan22core.specs import Precision

_ROWS_AT_ONCE = 8192
"""Of the embedding's 256,384: the quotients of all of them would be 4 GiB of fp32."""


class WeightOnly(nn.Module, ABC):
    """``quantized_weight`` (rows, width) int8 or fp8, ``weight_scale`` (rows, 1) fp32, ``bias`` in bf16 where there is.

    The quantized weight is a parameter, so that a census counts the same parameters in fewer bytes.
    """

    PRECISION: ClassVar[Precision]
    WEIGHT: ClassVar[str] = "quantized_weight"
    """Under which name files have the quantized values."""

    weight: None = None
    """No tensor: transformers' feed-forward casts its activations to the dtype of what it finds here, fp8 included."""

    def __init__(self, quantized_weight: torch.Tensor, weight_scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.quantized_weight = nn.Parameter(quantized_weight, requires_grad=False)
        self.weight_scale: torch.Tensor
        self.register_buffer("weight_scale", weight_scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    @torch.no_grad()
    def of(cls, clean: Any, device: torch.device) -> Self:
        """A linear or an embedding, quantized on ``device`` and kept where it is."""
        home = clean.weight.device
        weight, scale = cls.quantize(clean.weight.to(device))
        return cls(weight.to(home), scale.to(home), getattr(clean, "bias", None))

    @classmethod
    def quantize(cls, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (rows, width) in the quantized type, and the fp32 scales (rows, 1) that bring them back."""
        parts = [cls.quantize_rows(part) for part in values.split(_ROWS_AT_ONCE)]
        weights, scales = zip(*parts, strict=True)
        return (torch.cat(weights), torch.cat(scales)) if len(parts) > 1 else parts[0]

    @staticmethod
    @abstractmethod
    def quantize_rows(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, of some of the rows."""


class _WeightLinear(WeightOnly):
    """A linear layer. Quantized values are exact in bf16, so scales can wait for the products."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result = functional.linear(values, self.quantized_weight.to(values.dtype)) * self.weight_scale.t()
        if self.bias is not None:
            result += self.bias
        return result.to(values.dtype)


class _QuantizedEmbedding(WeightOnly):
    """A table of which the asked rows are brought back."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # not every device picks rows of fp8: its bytes are picked
        rows = self.quantized_weight.view(torch.uint8)[ids].view(self.quantized_weight.dtype)
        return (rows.float() * self.weight_scale[ids]).to(QUANTIZED_FROM)


class Int8WeightLinear(_WeightLinear):
    """127 levels each way for each output."""

    PRECISION = Precision.INT8
    quantize_rows = staticmethod(Int8Linear.quantize)


class Fp8WeightLinear(_WeightLinear):
    """e4m3fn, scaled by output."""

    PRECISION = Precision.FP8
    quantize_rows = staticmethod(Fp8Linear.quantize)


class Int8Embedding(_QuantizedEmbedding):
    """127 levels each way for each token."""

    PRECISION = Precision.INT8
    quantize_rows = staticmethod(Int8Linear.quantize)


class Fp8Embedding(_QuantizedEmbedding):
    """e4m3fn, scaled by token."""

    PRECISION = Precision.FP8
    quantize_rows = staticmethod(Fp8Linear.quantize)
