"""What the quantized linear layers have in common: what they hold, and how a device is asked whether it has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import nn

from wan22core.specs import Precision

QUANTIZED_FROM = torch.bfloat16
"""int8 and fp8 start from clean weights in it."""

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""Of a row of zeros: anything but zero will do."""


class QuantizedLinear(nn.Module, ABC):
    """In place of ``nn.Linear``, of plain tensor operations that can be compiled.

    ``weight`` (outputs, width) is of the quantized type, ``weight_scale`` fp32, ``bias`` (outputs) in the working
    precision. The weight is a parameter as before, so that a census counts the same parameters in fewer bytes.
    """

    PRECISION: ClassVar[Precision]
    MULTIPLE: ClassVar[int]
    """Width and outputs must be multiples of it."""
    WEIGHT: ClassVar[str] = "weight"
    """Under which name files have the quantized values."""

    def __init__(self, weight: torch.Tensor, weight_scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale: torch.Tensor
        self.register_buffer("weight_scale", weight_scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    @torch.no_grad()
    def of(cls, linear: nn.Linear, device: torch.device) -> Self:
        """Quantized on ``device``, and kept where ``linear`` is."""
        home = linear.weight.device
        weight, scale = cls.quantize(linear.weight.to(device))
        return cls(weight.to(home), scale.to(home), linear.bias)

    @staticmethod
    @abstractmethod
    def quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (rows, width) in the quantized type, and the fp32 scales that bring them back."""

    @abstractmethod
    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Outputs (rows, outputs) of working-precision ``rows`` (rows, width), in the same precision."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result = self.product(values.reshape(-1, values.shape[-1]))
        return result.reshape(*values.shape[:-1], self.weight.shape[0])

    @classmethod
    @torch.no_grad()
    def why_not(cls, device: torch.device) -> str | None:
        """Why ``device`` can't compute it, by a layer of 64 x 32 on 32 tokens; None where its outputs are right.

        Right is what follows from the quantized values, within 2^-7 of the largest output: two roundings to bf16.
        """
        tokens = torch.linspace(-1, 2, 32 * 64).sin().reshape(32, 64).to(torch.bfloat16)
        weight = torch.linspace(3, -1, 32 * 64).cos().reshape(32, 64).to(torch.bfloat16)
        bias = torch.linspace(-1, 1, 32).to(torch.bfloat16)
        exact = _restored(*cls.quantize(tokens)) @ _restored(*cls.quantize(weight)).t() + bias.double()
        try:
            layer = cls(*cls.quantize(weight.to(device)), bias.to(device))
            found = layer(tokens.to(device)).cpu().double()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return f"torch {torch.__version__} has no {cls.__name__} for it: {str(error).splitlines()[0]}"
        if bool((found - exact).abs().max() <= exact.abs().max() * 2**-7):
            return None
        return f"the {cls.__name__} of torch {torch.__version__} gives wrong results on it"


def _restored(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return values.double() * scale.double()
