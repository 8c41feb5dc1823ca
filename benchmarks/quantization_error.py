"""What quantizing costs in accuracy and takes in time: each method on the linears and on forwards of ``tiny``.

Usage: python benchmarks/quantization_error.py [--device cpu]
Prints Markdown. A layer's error is that of its outputs on activations of ``tiny`` against fp64; a forward's is that of
the whole transformer, or text encoder, against the same weights in bf16. The weights are random: figures are of the
arithmetic, and say nothing about pictures.
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
from transformers import UMT5EncoderModel

from wan22core.model.checkpoint import make_random
from wan22core.model.linear_fp8 import Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QuantizedLinear
from wan22core.model.quantized_layers import (
    layers_of,
    layers_of_block,
    prompt_linears,
    put_layers,
    quantized_linears,
)
from wan22core.specs import Precision

KINDS: tuple[type[QuantizedLinear], ...] = (Int8Linear, Fp8Linear, Fp8LinearByTensor)
PROMPTS = ("by their weights", "computed in it too", "left clean")
"""What becomes of the keys and values of the cross-attention; the first is how it is."""
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
            for prompts in PROMPTS:
                model = quantized(load(transformer, device), kind, device, prompts)
                found = [forward(model, seed) for seed in SEEDS]
                error, angle = compared(found, expected)
                own = layers[kind]
                shown = f"{statistics.median(own):.4f}, {max(own):.4f}" if prompts == PROMPTS[0] else ""
                name = f"{kind.__name__}, those of the prompt {prompts}"
                print(f"| {name} | {shown} | {error:.4f} | {angle:.1e} | {rate:.2f} |", flush=True)
        text_encoder_errors(Path(folder) / "tiny" / "text_encoder", device)


def load(folder: Path, device: torch.device) -> Any:
    """Clean weights in bf16."""
    return WanTransformer3DModel.from_pretrained(str(folder), torch_dtype=torch.bfloat16).to(device).eval()


def quantized(model: Any, kind: type[QuantizedLinear], device: torch.device, prompts: str) -> Any:
    """The same with its linears replaced, those that see the prompt only as ``prompts`` says."""
    for block in model.blocks:
        layers = layers_of_block(block, kind)
        if prompts != PROMPTS[0]:
            layers |= dict.fromkeys(prompt_linears(block), kind)
        for name, layer in layers.items():
            if prompts != PROMPTS[2] or name in quantized_linears(block):
                block.set_submodule(name, layer.of(block.get_submodule(name), device))
    return model


def text_encoder_errors(folder: Path, device: torch.device) -> None:
    """Prints what 64 tokens lose behind the table, the first block and the last, beside what bf16 loses of fp32.

    The blocks of random weights amplify any difference, so the first one says more of the arithmetic than the last.
    """

    def loaded(dtype: torch.dtype = torch.bfloat16) -> Any:
        return UMT5EncoderModel.from_pretrained(str(folder), dtype=dtype).to(device).eval()

    def found(model: Any) -> list[list[torch.Tensor]]:
        """Of each seed."""
        states = []
        for seed in SEEDS:
            ids = torch.randint(0, 512, (1, 64), generator=torch.Generator().manual_seed(seed)).to(device)
            result = model(ids, output_hidden_states=True)
            shown = (*result.hidden_states[:2], result.last_hidden_state)
            states.append([each.cpu().double() for each in shown])
        return states

    def line(name: str, states: list[list[torch.Tensor]], expected: list[list[torch.Tensor]]) -> None:
        errors = [compared([one[at] for one in states], [one[at] for one in expected])[0] for at in range(3)]
        print(f"| {name} | {' | '.join(f'{error:.4f}' for error in errors)} |", flush=True)

    print("\n| text encoder | table | first block | embeddings |\n|---|---|---|---|")
    clean = found(loaded())
    line("bf16 against fp32", clean, found(loaded(torch.float32)))
    for method in (Precision.INT8, Precision.FP8):
        model = loaded()
        put_layers(model, layers_of(model, method), device)
        line(f"{method.value} against bf16", found(model), clean)


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
        for linear in quantized_linears(block).values()
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
