"""Quantization of the transformer: really applied, proved by bytes, in no more memory than it needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import nn

from tests.model.tiny_transformer import CPU, KINDS, forward, load_transformer, relative_error, require_fp8
from wan22core.errors import UnsupportedQuantizationError
from wan22core.model import quantize, quantized_layers
from wan22core.model.architecture import SHAPES
from wan22core.model.engine import WanEngine
from wan22core.model.linear_fp8 import Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import Int8Linear
from wan22core.model.linear_quantized import QuantizedLinear
from wan22core.planning import work
from wan22core.recipes import recipe
from wan22core.records import Progress
from wan22core.specs import WORKLOADS, Architecture, BenchmarkSpec, Precision

NOWHERE = torch.device("meta")


def ignored(progress: Progress) -> None:
    """Nobody asks how far it is."""


@pytest.fixture
def transformer(tiny_checkpoint: Path) -> Callable[[], Any]:
    """Loads it anew, from clean weights."""
    return lambda: load_transformer(tiny_checkpoint)


def test_a_device_is_asked_by_products() -> None:
    """A CPU computes int8; the meta device computes nothing, and says so of every precision."""
    here, nowhere = quantize.supported(CPU), quantize.supported(NOWHERE)
    assert (here[Precision.INT8], here[Precision.BF16]) == (None, None)
    assert set(nowhere) == set(here)
    assert all(f"torch {torch.__version__}" in str(reason) for reason in nowhere.values())


def test_what_a_device_can_not_compute_is_refused_before_anything_is_replaced(transformer: Callable[[], Any]) -> None:
    model = transformer()
    with pytest.raises(UnsupportedQuantizationError, match="can't be quantized to int8 on meta: torch"):
        quantize.put_in_force(model, Precision.INT8, NOWHERE, ignored)
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


def test_without_products_by_row_fp8_scales_by_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where torch has no such kernel."""
    require_fp8()
    scaled_mm = torch._scaled_mm

    def by_tensor_only(*operands: Any, **more: Any) -> torch.Tensor:
        if more["scale_a"].ndim:
            raise NotImplementedError("row-wise scaling is not built")
        return scaled_mm(*operands, **more)

    monkeypatch.setattr(torch, "_scaled_mm", by_tensor_only)
    assert quantize.kind_for(Precision.FP8, CPU) is Fp8LinearByTensor


@pytest.mark.parametrize(("kind", "layer_error"), [(Int8Linear, 0.0105), (Fp8Linear, 0.037)])
def test_a_forward_is_as_near_as_its_layers_allow(
    kind: type[QuantizedLinear], layer_error: float, transformer: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between half and twice the error of one layer (the medians of docs/quantization.md, as the test above predicts).

    A branch has at most four quantized products in a row (query or key, value, output), whose independent errors add in
    squares: twice that of one. The residual stream adds branches and their errors alike. Less than half would mean that
    they are not quantized. The cosine follows: an error of r across the result leaves sqrt(1 - r^2).
    """
    if kind is not Int8Linear:
        require_fp8()
    clean, model = transformer(), transformer()
    quantize.put_in_force(model, KINDS[kind], CPU, ignored)
    expected, found = forward(clean), forward(model)
    error = relative_error(found, expected)
    assert layer_error / 2 < error < 2 * layer_error
    cosine = float(nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0))
    assert cosine > (1 - (2 * layer_error) ** 2) ** 0.5


@pytest.mark.parametrize("method", [Precision.INT8, Precision.FP8])
def test_the_census_proves_the_method(tiny_checkpoint: Path, method: Precision) -> None:
    """The same parameters in fewer bytes, the scales beside them; what is not quantized keeps its dtype."""
    if method is Precision.FP8:
        require_fp8()
    engine = WanEngine(_spec(method), tiny_checkpoint, "cpu")
    engine.load(ignored)
    (before,) = [part for part in engine.census() if part.component == "transformer"]
    engine.quantize(method, ignored)
    (after,) = [part for part in engine.census() if part.component == "transformer"]
    width, ffn = 256, 896
    values, scales = 30 * (8 * width * width + 2 * width * ffn), 30 * (8 * width + ffn + width)
    name = {Precision.INT8: "int8", Precision.FP8: "float8_e4m3fn"}[method]
    assert (before.prepared, after.prepared) == (False, False)
    assert after.parameters == before.parameters == SHAPES[Architecture.TINY].parameters["transformer"]
    assert after.bytes_by_dtype == {
        **before.bytes_by_dtype,
        name: values,
        "bfloat16": before.bytes_by_dtype["bfloat16"] - 2 * values,
        "float32": before.bytes_by_dtype["float32"] + 4 * scales,
    }
    assert max(after.bytes_by_dtype, key=lambda each: after.bytes_by_dtype[each]) == name


def test_the_planner_predicts_the_bytes_that_are_there() -> None:
    """Of the 5B model, quantized without values: planning and model quantize the same linears."""
    with torch.device("meta"):
        model = WanTransformer3DModel(**SHAPES[Architecture.TI2V_5B].transformer)
    kept = tuple(WanTransformer3DModel._keep_in_fp32_modules)
    for name, parameter in model.named_parameters():
        if not any(each in name for each in kept):
            parameter.data = parameter.data.bfloat16()
    quantized_layers.put_layers(model, quantized_layers.layers_of(model, Precision.INT8), NOWHERE)
    tensors = model.state_dict().values()
    assert sum(tensor.numel() for tensor in tensors if tensor.dtype is torch.int8) == 4_907_335_680
    held = sum(tensor.nbytes for tensor in tensors)
    assert held == work.transformer_bytes(Precision.INT8) == work.transformer_bytes(Precision.FP8)


def test_never_two_copies(transformer: Callable[[], Any]) -> None:
    """By the allocator's own record: beyond the clean weights never more than some copies of the largest linear."""
    model = transformer()
    layers = [(block, quantized_layers.layers_of_block(block, Int8Linear)) for block in model.blocks]
    linears = [block.get_submodule(name) for block, names in layers for name in names]
    clean, largest, mark = sum(each.weight.nbytes for each in linears), 256 * 896, 1_234_567
    with torch.profiler.profile(profile_memory=True) as profile:
        for linear in linears:
            linear.weight.data = linear.weight.data.clone()
        marker = torch.empty(mark, dtype=torch.uint8)
        del linears, linear
        quantize.put_in_force(model, Precision.INT8, CPU, ignored)
    del marker
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = list(accumulate(changes[changes.index(mark) + 1 :]))
    assert 0 < max(held) < 10 * largest < clean / 20, "of one linear: in fp32, its quotients, its int8 values"
    assert held[-1] < -0.4 * clean, "int8 values and their scales are there, the clean weights are gone"


def test_progress_counts_the_bytes_block_by_block(transformer: Callable[[], Any]) -> None:
    """Of the clean weights; the largest and the last block are there together, and nothing is reported twice."""
    heard: list[Progress] = []
    quantize.put_in_force(transformer(), Precision.INT8, CPU, heard.append)
    total = 2 * 30 * (8 * 256 * 256 + 2 * 256 * 896)
    assert [each.bytes_done for each in heard] == [total // 30 * number for number in range(1, 31)]
    assert {each.bytes_total for each in heard} == {total}
    assert [each.fraction for each in heard].index(1.0) == 29


def test_it_ends_between_two_blocks_when_it_is_told_to(transformer: Callable[[], Any]) -> None:
    """What the progress raises passes through, and the other blocks are as they were."""
    model = transformer()

    def stop_at_the_third(progress: Progress) -> None:
        if progress.bytes_done == 3 * (progress.bytes_total or 0) // 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize.put_in_force(model, Precision.INT8, CPU, stop_at_the_third)
    quantized = [any(isinstance(module, QuantizedLinear) for module in block.modules()) for block in model.blocks]
    assert quantized == [True] * 3 + [False] * 27


def test_a_transformer_is_quantized_once_and_from_bf16(transformer: Callable[[], Any]) -> None:
    model = transformer()
    quantize.put_in_force(model, Precision.INT8, CPU, ignored)
    assert model.dtype is torch.bfloat16, "diffusers makes latents and embeddings of it"
    before = dict(model.named_parameters())
    quantize.put_in_force(model, Precision.INT8, CPU, ignored)
    assert all(before[name] is parameter for name, parameter in model.named_parameters()), "it is in force already"
    with pytest.raises(UnsupportedQuantizationError, match="is in int8 already, all of it or a part; bf16 starts from"):
        quantize.put_in_force(model, Precision.BF16, CPU, ignored)
    model.blocks[29] = transformer().blocks[29]
    with pytest.raises(UnsupportedQuantizationError, match="is in int8 already, all of it or a part; int8 starts from"):
        quantize.put_in_force(model, Precision.INT8, CPU, ignored)
    with pytest.raises(UnsupportedQuantizationError, match="float32; int8 starts from"):
        quantize.put_in_force(transformer().float(), Precision.INT8, CPU, ignored)
    with pytest.raises(UnsupportedQuantizationError, match="fp16 starts from"):
        quantize.put_in_force(transformer(), Precision.FP16, CPU, ignored)


def test_a_shape_without_products_is_refused_by_name() -> None:
    block = nn.ModuleDict({"fine": nn.Linear(16, 16), "odd": nn.Linear(16, 12)}).bfloat16()
    model = nn.Module()
    model.blocks, model.dtype = nn.ModuleList([block]), torch.bfloat16
    with pytest.raises(UnsupportedQuantizationError, match="odd of 16 x 12 can't be a Int8Linear"):
        quantize.put_in_force(model, Precision.INT8, CPU, ignored)
    assert type(block["fine"]) is nn.Linear


def test_fp16_accumulation_needs_a_cuda_device(transformer: Callable[[], Any]) -> None:
    """A CPU has no such switch; bf16, which the run then falls back to, has nothing to do with it."""
    put = partial(quantize.put_in_force, device=CPU, report=ignored, fp16_accumulation=True)
    with pytest.raises(UnsupportedQuantizationError, match="accumulated in fp16 on cpu"):
        put(transformer().half(), Precision.FP16)
    put(transformer(), Precision.BF16)
    assert torch.backends.cuda.matmul.allow_fp16_accumulation is False


@pytest.mark.gpu
def test_fp16_accumulation_is_in_force_on_this_gpu(transformer: Callable[[], Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    device, matmul = torch.device("cuda:0"), torch.backends.cuda.matmul
    try:
        quantize.put_in_force(transformer().half().to(device), Precision.FP16, device, ignored, fp16_accumulation=True)
        assert matmul.allow_fp16_accumulation is True
    finally:
        matmul.allow_fp16_accumulation = False


def _spec(method: Precision) -> BenchmarkSpec:
    asked = recipe("reference").model_copy(update={"transformer_precision": method})
    return BenchmarkSpec(workload=WORKLOADS["smoke"], recipe=asked)
