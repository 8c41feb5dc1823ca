"""Sustained rates of a device, in a child process: fixed shapes, warm-up first, one rate a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.against_stock.disk import disk_ceilings
from benchmarks.against_stock.records import Ceiling, CeilingName, Ceilings
from wan22core.planning.work import FFN_WIDTH, PROMPT_TOKENS, WIDTH
from wan22core.records import Progress
from wan22core.specs import WORKLOADS
from wan22core.worker.engine import Report
from wan22core.worker.host import resolve_device, torch_facts

SAMPLES = 7
HEAD_WIDTH = 128
_SAMPLE_S = 0.3
"""A sample lasts so long on a GPU: shorter ones see the clocks before the power limit does."""
_MIB = 2**20


class Shapes(NamedTuple):
    """What is multiplied and copied."""

    tokens: int
    prompt_tokens: int
    width: int
    ffn_width: int
    heads: int
    copy_bytes: int
    disk_bytes: int
    """Of the checkpoint's files, from their beginning."""
    sample_s: float


FULL = Shapes(
    tokens=WORKLOADS["2s-720p"].tokens,
    prompt_tokens=PROMPT_TOKENS,
    width=WIDTH,
    ffn_width=FFN_WIDTH,
    heads=WIDTH // HEAD_WIDTH,
    copy_bytes=1024 * _MIB,
    disk_bytes=4096 * _MIB,
    sample_s=_SAMPLE_S,
)
"""One block of the 5B model at 1280x704 and 49 frames."""
SMALL = Shapes(128, 32, 256, 1024, 2, 16 * _MIB, 16 * _MIB, 0.005)
"""For a CPU: the way is the same."""


def ceilings_job(device: str, checkpoint: str, report: Report) -> dict[str, Any]:
    """``Ceilings`` of a torch device and of the disk under ``checkpoint``, as a job of a child process.

    Raises ``IncompatibleHardwareError`` for a CUDA device that torch does not have.
    """
    import torch

    found_device = resolve_device(device, torch_facts())
    on_cuda = found_device != "cpu"
    shapes = FULL if on_cuda else SMALL
    parts: list[Callable[[], list[Ceiling]]] = [
        partial(_gemm, found_device, shapes),
        partial(_attentions, found_device, shapes),
        partial(_copies, found_device, shapes),
        partial(disk_ceilings, Path(checkpoint), shapes.disk_bytes, SAMPLES),
    ]
    found: list[Ceiling] = []
    for number, part in enumerate(parts):
        report(Progress(stage="ceilings", fraction=number / len(parts)))
        found += part()
    return Ceilings(
        device=found_device,
        device_name=torch.cuda.get_device_name(found_device) if on_cuda else None,
        torch=torch.__version__,
        scaled_down=not on_cuda,
        found=found,
    ).model_dump(mode="json")


def _gemm(device: str, shapes: Shapes) -> list[Ceiling]:
    """The linears of one block in bf16, on normal values: zeros would draw less power."""
    import torch

    width, ffn = shapes.width, shapes.ffn_width
    values = partial(torch.randn, dtype=torch.bfloat16, device=device)
    tokens, prompt, wide = values(shapes.tokens, width), values(shapes.prompt_tokens, width), values(shapes.tokens, ffn)
    square, up, down = values(width, width), values(width, ffn), values(ffn, width)
    products = [(tokens, square)] * 6 + [(prompt, square)] * 2 + [(tokens, up), (wide, down)]
    flop = sum(2.0 * len(left) * right.numel() for left, right in products)

    def multiply() -> None:
        for left, right in products:
            torch.mm(left, right)

    what = f"linears of a block, {shapes.tokens} tokens, {width} and {ffn} wide"
    return [Ceiling(name=CeilingName.GEMM, what=what, samples=_rates(device, multiply, flop, shapes.sample_s))]


def _attentions(device: str, shapes: Shapes) -> list[Ceiling]:
    """Self-attention by cuDNN, by PyTorch's flash kernel, and as torch dispatches it by itself."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    side = (1, shapes.heads, shapes.tokens, HEAD_WIDTH)
    query, key, value = (torch.randn(side, dtype=torch.bfloat16, device=device) for _ in range(3))
    flop = 4.0 * shapes.tokens**2 * shapes.heads * HEAD_WIDTH
    what = f"{shapes.tokens} tokens x {shapes.heads} heads x {HEAD_WIDTH}, bf16"

    def attend() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, key, value)

    def under(name: CeilingName, backend: SDPBackend) -> Ceiling:
        try:
            with sdpa_kernel(backend):
                return Ceiling(name=name, what=what, samples=_rates(device, attend, flop, shapes.sample_s))
        except RuntimeError as error:  # torch's word for: there is no such kernel for this device and shape
            return Ceiling(name=name, what=what, reason=str(error).splitlines()[0])

    named = {
        CeilingName.ATTENTION_CUDNN: SDPBackend.CUDNN_ATTENTION,
        CeilingName.ATTENTION_FLASH: SDPBackend.FLASH_ATTENTION,
    }
    own = Ceiling(name=CeilingName.ATTENTION, what=what, samples=_rates(device, attend, flop, shapes.sample_s))
    return [*(under(name, backend) for name, backend in named.items()), own]


def _copies(device: str, shapes: Shapes) -> list[Ceiling]:
    """On the device, and from pinned memory to it."""
    import torch

    count, what = shapes.copy_bytes, f"{shapes.copy_bytes // _MIB} MiB"
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    on_device = _rates(device, lambda: target.copy_(source), 2.0 * count, shapes.sample_s)
    found = [Ceiling(name=CeilingName.DEVICE_COPY, what=f"{what}, read and written", samples=on_device)]
    if device == "cpu":
        return [*found, Ceiling(name=CeilingName.PINNED_COPY, what=what, reason="a CPU has no bus to its memory")]
    # ones, not empty: pages that nobody wrote to share one zero page, which is read from the cache
    pinned = torch.ones(count, dtype=torch.uint8).pin_memory()
    arriving = _rates(device, lambda: target.copy_(pinned, non_blocking=True), float(count), shapes.sample_s)
    return [*found, Ceiling(name=CeilingName.PINNED_COPY, what=what, samples=arriving)]


def _rates(device: str, work: Callable[[], object], amount: float, sample_s: float) -> list[float]:
    """``amount`` by second, ``SAMPLES`` times: each as many repetitions as last ``sample_s`` after the warm-up."""
    _seconds(device, work, 1)  # what is allocated or chosen once
    repeats = max(1, math.ceil(sample_s / _seconds(device, work, 2) * 2))
    _seconds(device, work, repeats)  # up to the clocks that it will have
    return [amount * repeats / _seconds(device, work, repeats) for _ in range(SAMPLES)]


def _seconds(device: str, work: Callable[[], object], repeats: int) -> float:
    """Seconds of so many repetitions: between two events of the device, by the clock on a CPU."""
    if device == "cpu":
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        return time.perf_counter() - began
    import torch

    cuda: Any = torch.cuda
    with cuda.device(device):
        before, after = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        before.record()
        for _ in range(repeats):
            work()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000
