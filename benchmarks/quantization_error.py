"""What quantizing costs in accuracy and takes in time: each method on the linears and on a forward of ``tiny``.

Usage: python benchmarks/quantization_error.py [--device cpu]
Prints Markdown. A layer's error is that of its outputs on activations of ``tiny`` against fp64; a forward's is that of
the whole transformer against the same weights in bf16. The weights are random: figures are of the arithmetic, and say
nothing about pictures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.utils.logging import disable_progress_bar
from torch import nn

from wan22core.model import quantize
from wan22core.model.checkpoint import make_random
from wan22core.model.linear_fp8 import Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QuantizedLinear

KINDS: tuple[type[QuantizedLinear], ...] = (Int8Linear, Fp8Linear, Fp8LinearByTensor)
PROMPT_ONLY = ("attn2.to_k", "attn2.to_v")
SEEDS = range(3)
BIG = (3072, 14336)
"""The feed-forward of the 5B model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    disable_progress_bar()
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    heads = ("linears", "layer: median, largest", "forward", "1 - cosine", "quantized, GiB/s of fp32")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        make_random(folder=f"{folder}/tiny", architecture="tiny", seed=0, report=lambda _: None)
        transformer = Path(folder) / "tiny" / "transformer"
        clean = load(transformer, device)
        layers = layer_errors(clean, device)
        expected = [forward(clean, seed) for seed in SEEDS]
        for kind in KINDS:
            rate = rate_gib_s(kind, device)
            for name, names in (("as decided", None), ("all of the blocks", PROMPT_ONLY)):
                model = quantized(load(transformer, device), kind, device, also=names or ())
                found = [forward(model, seed) for seed in SEEDS]
                error, angle = compared(found, expected)
                own = layers[kind]
                shown = f"{statistics.median(own):.4f}, {max(own):.4f}" if names is None else ""
                print(f"| {kind.__name__}, {name} | {shown} | {error:.4f} | {angle:.1e} | {rate:.2f} |", flush=True)


def load(folder: Path, device: torch.device) -> Any:
    """Clean weights in bf16."""
    return WanTransformer3DModel.from_pretrained(str(folder), torch_dtype=torch.bfloat16).to(device).eval()


def quantized(model: Any, kind: type[QuantizedLinear], device: torch.device, also: tuple[str, ...]) -> Any:
    """The same with the linears of ``quantized_linears`` and those called ``also`` replaced."""
    for block in model.blocks:
        linears = quantize.quantized_linears(block) | {name: block.get_submodule(name) for name in also}
        for name, linear in linears.items():
            block.set_submodule(name, kind.of(linear, device))
    return model


def forward(model: Any, seed: int) -> torch.Tensor:
    """The output for the inputs of ``smoke``, in fp64 on the CPU."""
    random = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    latents = torch.randn(1, 48, 3, 10, 10, generator=random).bfloat16().to(device)
    prompt = torch.randn(1, 512, 256, generator=random).bfloat16().to(device)
    timesteps = torch.full((1, 75), 500, device=device)
    result: torch.Tensor = model(latents, timesteps, prompt, return_dict=False)[0]
    return result.cpu().double()


def layer_errors(model: Any, device: torch.device) -> dict[type[QuantizedLinear], list[float]]:
    """Relative errors of every linear that is quantized, on the activations that it gets in one forward."""
    seen: dict[nn.Linear, torch.Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(lambda module, values: seen.update({module: values[0][0]}))
        for block in model.blocks
        for linear in quantize.quantized_linears(block).values()
    ]
    forward(model, 0)
    for hook in hooks:
        hook.remove()
    return {kind: [_error(kind, linear, values, device) for linear, values in seen.items()] for kind in KINDS}


def _error(kind: type[QuantizedLinear], linear: nn.Linear, values: torch.Tensor, device: torch.device) -> float:
    exact = nn.functional.linear(values.double(), linear.weight.double(), linear.bias.double())
    return float((kind.of(linear, device)(values).double() - exact).norm() / exact.norm())


def compared(found: list[torch.Tensor], expected: list[torch.Tensor]) -> tuple[float, float]:
    """Median relative error and median of 1 - cosine over the seeds."""
    errors = [float((one - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]
    angles = [
        1 - float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))
        for one, other in zip(found, expected, strict=True)
    ]
    return statistics.median(errors), statistics.median(angles)


def rate_gib_s(kind: type[QuantizedLinear], device: torch.device) -> float:
    """Median of five: the two linears of the feed-forward, counted at the 4 bytes a value that their files have."""
    linears = [nn.Linear(*sides, dtype=torch.bfloat16, device=device) for sides in (BIG, BIG[::-1])]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for linear in linears:
            kind.of(linear, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * 4 * BIG[0] * BIG[1] / 2**30 / statistics.median(times)


if __name__ == "__main__":
    main()
