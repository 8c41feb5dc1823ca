"""Layers with quantized weights and clean products: their arithmetic, and what they cost the prompt's embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.model.test_direct_loader import contents, load_text_encoder
from tests.model.tiny_transformer import CPU, relative_error
from wan22core.model.quantized_layers import layers_of, put_layers, working_dtype
from wan22core.model.weight_only import (
    Fp8Embedding,
    Fp8WeightLinear,
    Int8Embedding,
    Int8WeightLinear,
    WeightOnly,
)
from wan22core.specs import Precision

LINEARS = [Int8WeightLinear, Fp8WeightLinear]
EMBEDDINGS = [Int8Embedding, Fp8Embedding]


def restored(layer: WeightOnly) -> torch.Tensor:
    return layer.quantized_weight.double() * layer.weight_scale.double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 512])
@pytest.mark.parametrize("kind", LINEARS)
def test_products_are_those_of_the_restored_weights(kind: type[WeightOnly], rows: int, bias: bool) -> None:
    """One token and a prompt's 512, in odd widths too: within two roundings to bf16, and those of the sums in fp32."""
    torch.manual_seed(0)
    linear = nn.Linear(3073, 250, bias=bias, dtype=torch.bfloat16)
    values = torch.randn(2, rows, 3073).bfloat16()
    layer = kind.of(linear, CPU)
    product = values.double() @ restored(layer).t()
    exact = product + linear.bias.double() if bias else product
    allowed = (product.abs() + exact.abs()) * 2**-8 + product.abs().max() * 2**-18
    assert layer(values).dtype is torch.bfloat16
    assert bool(((layer(values).double() - exact).abs() <= allowed).all())


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_an_embedding_gives_the_restored_rows(kind: type[WeightOnly]) -> None:
    """Any shape of ids; a table longer than what is quantized at once is as if it had been quantized at once."""
    torch.manual_seed(0)
    table = nn.Embedding(20_000, 8, dtype=torch.bfloat16)
    layer = kind.of(table, CPU)
    whole = kind.quantize_rows(table.weight)
    assert torch.equal(layer.quantized_weight.float(), whole[0].float())
    assert torch.equal(layer.weight_scale, whole[1])
    ids = torch.tensor([[0, 19_999, 8192], [8191, 7, 7]])
    expected = (layer.quantized_weight.float() * layer.weight_scale)[ids].bfloat16()
    assert torch.equal(layer(ids), expected)


@pytest.mark.parametrize("kind", [*LINEARS, *EMBEDDINGS])
def test_a_layer_is_one_graph(kind: type[WeightOnly]) -> None:
    torch.manual_seed(0)
    if kind in LINEARS:
        layer, values = kind.of(nn.Linear(64, 32, dtype=torch.bfloat16), CPU), torch.randn(1, 40, 64).bfloat16()
    else:
        layer, values = kind.of(nn.Embedding(64, 32, dtype=torch.bfloat16), CPU), torch.arange(40)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(values), layer(values))


@pytest.mark.parametrize(
    ("method", "of_table", "of_block"), [(Precision.INT8, 0.0071, 0.026), (Precision.FP8, 0.0263, 0.092)]
)
@torch.no_grad()
def test_the_embeddings_error_is_the_measured_one(
    method: Precision, of_table: float, of_block: float, tiny_checkpoint: Path
) -> None:
    """Of docs/quantization.md, within a quarter: more would be another arithmetic, less would be none.

    Behind the table and the first block: later ones of these random weights amplify any difference, bf16's own too.
    """
    clean, model = (load_text_encoder(tiny_checkpoint / "text_encoder") for _ in range(2))
    put_layers(model, layers_of(model, method), CPU)
    assert {type(each) for each in model.modules() if isinstance(each, nn.Linear | nn.Embedding)} == {nn.Embedding}
    assert working_dtype(model) is working_dtype(clean) is torch.bfloat16
    ids = torch.randint(0, 512, (1, 64), generator=torch.Generator().manual_seed(0))
    found, exact = (each(ids, output_hidden_states=True) for each in (model, clean))
    errors = [
        relative_error(one.double(), other.double())
        for one, other in zip(found.hidden_states[:2], exact.hidden_states[:2], strict=True)
    ]
    assert errors == pytest.approx([of_table, of_block], rel=0.25)
    assert found.last_hidden_state.dtype is torch.bfloat16
    assert bool(torch.isfinite(found.last_hidden_state).all())


def test_the_activations_of_the_feed_forward_stay_in_bf16(tiny_checkpoint: Path) -> None:
    """transformers casts them to the dtype of the last linear's weight, where that shows one."""
    model = load_text_encoder(tiny_checkpoint / "text_encoder")
    put_layers(model, layers_of(model, Precision.FP8), CPU)
    seen: list[Any] = []
    last = model.encoder.block[0].layer[1].DenseReluDense.wo
    last.register_forward_pre_hook(lambda _module, values: seen.append(values[0].dtype))
    model(torch.arange(8).reshape(1, 8))
    assert seen == [torch.bfloat16]
    assert any(dtype is torch.float8_e4m3fn for dtype, _ in contents(model).values())
