"""A linear layer in fp8 (e4m3fn): weights and activations scaled to its range, products by ``torch._scaled_mm``."""

from __future__ import annotations

import torch

from wan22core.model.linear_quantized import SMALLEST_SCALE, QuantizedLinear
from wan22core.specs import Precision

LARGEST = torch.finfo(torch.float8_e4m3fn).max


class Fp8Linear(QuantizedLinear):
    """``weight`` fp8, ``weight_scale`` (outputs, 1): weights are scaled by output, activations by token.

    Sums are fp32, on a GPU with its fast accumulation; the outputs are rounded to bf16, bias included.
    """

    PRECISION = Precision.FP8
    MULTIPLE = 16

    @staticmethod
    def quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """fp8 (rows, width), and one scale a row (rows, 1). NaN stays NaN, infinity becomes it."""
        return _scaled(values, values.abs().amax(dim=1, keepdim=True))

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        quantized, scale = self.quantize(rows)
        result = torch._scaled_mm(
            quantized,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.weight_scale.t(),
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return result.to(rows.dtype)


class Fp8LinearByTensor(Fp8Linear):
    """One scale a tensor, for where products scaled by row are not built; ``weight_scale`` has no dimensions."""

    @staticmethod
    def quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """fp8 (rows, width), and one scale for all of it."""
        return _scaled(values, values.abs().amax())


def _scaled(values: torch.Tensor, largest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """No quotient is larger than 448 and one rounding of fp32, which rounds to 448: nothing has to be clamped."""
    scale = largest.float().div(LARGEST).clamp(min=SMALLEST_SCALE)
    # a scale without dimensions would leave 16-bit quotients in 16 bits
    return torch.div(values, scale.reshape(-1, 1)).to(torch.float8_e4m3fn), scale
