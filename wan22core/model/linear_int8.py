"""A linear layer in int8 (W8A8): weights with one scale a row, activations with one a token, products in int32.

Symmetric, 127 levels each way, no zero point: a value is ``scale * integer``, so that a product is one integer product
and two scales. The integer product is exact; all of the error is in the rounding of weights and activations.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from wan22core.model.linear_quantized import SMALLEST_SCALE, QuantizedLinear
from wan22core.specs import Precision

LEVELS = 127
_FEWEST_ROWS = 17
"""On CUDA ``torch._int_mm`` refuses 16 rows and less."""


class Int8Linear(QuantizedLinear):
    """``weight`` int8, ``weight_scale`` (outputs, 1). Scales and bias are applied in fp32."""

    PRECISION = Precision.INT8
    MULTIPLE = 8

    @staticmethod
    def quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 (rows, width), and one scale a row (rows, 1). A row with NaN or infinity gets a scale that is either.

        No quotient is larger than 127 and one rounding of fp32, which rounds to 127: nothing has to be clamped.
        """
        scale = values.abs().amax(dim=1, keepdim=True).float().div(LEVELS).clamp(min=SMALLEST_SCALE)
        return torch.div(values, scale).round_().to(torch.int8), scale

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        quantized, scale = self.quantize(rows)
        result = int_product(quantized, self.weight) * scale
        result *= self.weight_scale.t()
        if self.bias is not None:
            result += self.bias
        return result.to(rows.dtype)


def int_product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """int32 (rows, outputs) of int8 ``rows`` (rows, width) and ``weight`` (outputs, width); exact."""
    missing = _FEWEST_ROWS - rows.shape[0]
    if missing > 0:
        return torch._int_mm(functional.pad(rows, (0, 0, 0, missing)), weight.t())[: rows.shape[0]]
    return torch._int_mm(rows, weight.t())
