"""The transformer of ``tiny`` for the tests of quantization: loaded, run and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import nn

from wan22core.model import quantize, quantized_layers
from wan22core.model.linear_fp8 import Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QuantizedLinear
from wan22core.specs import Precision

CPU = torch.device("cpu")
KINDS: dict[type[QuantizedLinear], Precision] = {
    Int8Linear: Precision.INT8,
    Fp8Linear: Precision.FP8,
    Fp8LinearByTensor: Precision.FP8,
}


def load_transformer(checkpoint: Path) -> Any:
    """Clean weights in bf16."""
    return WanTransformer3DModel.from_pretrained(str(checkpoint / "transformer"), torch_dtype=torch.bfloat16).eval()


def quantized_linears(block: nn.Module) -> list[nn.Linear]:
    """Those that are computed in int8 or fp8."""
    return list(quantized_layers.quantized_linears(block).values())


def require_fp8() -> None:
    """torch 2.13 computes it on a CPU; where another one does not, that is the library's word."""
    if (reason := quantize.supported(CPU)[Precision.FP8]) is not None:
        pytest.skip(reason)


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What ``smoke`` gives the transformer: latents, 75 timesteps, 512 embeddings."""
    random = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 48, 3, 10, 10, generator=random).bfloat16()
    return latents, torch.full((1, 75), 500), torch.randn(1, 512, 256, generator=random).bfloat16()


@torch.no_grad()
def forward(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(*inputs(), return_dict=False)[0].double()
    return result


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())
