"""The quantized linears by themselves: exact where they are integers, and as wrong as their rounding makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.model.tiny_transformer import (
    CPU,
    KINDS,
    forward,
    load_transformer,
    quantized_linears,
    relative_error,
    require_fp8,
)
from wan22core.model.linear_fp8 import LARGEST, Fp8Linear, Fp8LinearByTensor
from wan22core.model.linear_int8 import LEVELS, Int8Linear, int_product
from wan22core.model.linear_quantized import QuantizedLinear


@pytest.mark.parametrize("kind", [Fp8Linear, Fp8LinearByTensor])
def test_a_device_whose_products_are_wrong_is_refused(
    kind: type[QuantizedLinear], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that answers is not believed for it."""
    require_fp8()
    assert kind.why_not(CPU) is None
    scaled_mm = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *operands, **more: scaled_mm(*operands, **more) * 1.02)
    assert "gives wrong results" in str(kind.why_not(CPU))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    width=st.sampled_from([8, 64, 896, 14336]),
    outputs=st.sampled_from([8, 24, 64]),
    seed=st.integers(0, 2**31),
    extreme=st.booleans(),
)
def test_integer_products_are_exact(rows: int, width: int, outputs: int, seed: int, extreme: bool) -> None:
    """Fewer than 17 rows, the width of the 5B model's feed-forward and all values at the end of the range included."""
    random = torch.Generator().manual_seed(seed)
    kinds: dict[str, Any] = {"dtype": torch.int8, "generator": random}
    left = torch.randint(-LEVELS, LEVELS + 1, (rows, width), **kinds)
    right = torch.randint(-LEVELS, LEVELS + 1, (outputs, width), **kinds)
    if extreme:
        left, right = left.sign() * LEVELS, right.sign() * LEVELS
    found = int_product(left, right)
    assert found.dtype is torch.int32
    assert torch.equal(found.long(), left.long() @ right.long().t())


@pytest.mark.parametrize("bias", [True, False])
def test_an_int8_layer_is_its_arithmetic_to_the_bit(bias: bool) -> None:
    """Against the same scales and integers multiplied in fp64, whose sums of integers are exact."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 896, bias=bias, dtype=torch.bfloat16)
    values = torch.randn(2, 33, 256).bfloat16()
    layer = Int8Linear.of(linear, CPU)
    rows, scale = Int8Linear.quantize(values.reshape(-1, 256))
    product = (rows.double() @ layer.weight.double().t()).float()
    expected = product * scale * layer.weight_scale.t()
    expected = (expected + linear.bias if bias else expected).bfloat16().reshape(2, 33, 896)
    assert torch.equal(layer(values), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_within_half_a_step(kind: type[QuantizedLinear]) -> None:
    """Give or take the rounding of the quotient to fp32. The largest value is met; a row of zeros stays one."""
    torch.manual_seed(0)
    values = torch.randn(64, 3072).bfloat16() * torch.logspace(-4, 4, 64).unsqueeze(1).bfloat16()
    values[7] = 0
    quantized, scale = kind.quantize(values)
    back = quantized.double() * scale.double()
    assert bool(((back - values.double()).abs() <= _steps(quantized) * scale.double() / 2 * (1 + 127 * 2**-23)).all())
    assert bool((back[7] == 0).all())
    largest = LEVELS if kind is Int8Linear else LARGEST
    assert float(quantized.double().abs().max()) == largest


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_no_number_is_never_hidden(kind: type[QuantizedLinear], bad: float) -> None:
    """Integers have no NaN: the scale carries it, so that the check of the latents sees it."""
    if kind is not Int8Linear:
        require_fp8()
    torch.manual_seed(0)
    layer = kind.of(nn.Linear(64, 32, dtype=torch.bfloat16), CPU)
    values = torch.randn(32, 64).bfloat16()
    values[3, 5] = bad
    found = layer(values)
    assert not bool(torch.isfinite(found[3]).any())
    if kind is not Fp8LinearByTensor:
        assert bool(torch.isfinite(found[[0, 1, 2, 4]]).all())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_error_is_that_of_its_rounding(kind: type[QuantizedLinear], tiny_checkpoint: Path) -> None:
    """Each linear of the last block, on the activations that it gets in ``tiny``.

    Rounding to steps of s makes an independent error of variance s^2/12, for each value of both operands; the error of
    the product follows from these variances. Measured and predicted differ by less than 15 % for every linear.
    """
    if kind is not Int8Linear:
        require_fp8()
    model = load_transformer(tiny_checkpoint)
    for linear, values in _seen(model.blocks[-1], model):
        exact = values.double() @ linear.weight.double().t() + linear.bias.double()
        found = kind.of(linear, CPU)(values).double()
        predicted = _predicted_error(kind, values, linear.weight) / float(exact.norm())
        assert relative_error(found, exact) == pytest.approx(predicted, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_one_graph(kind: type[QuantizedLinear]) -> None:
    """It can be compiled whole, and computes the same."""
    if kind is not Int8Linear:
        require_fp8()
    torch.manual_seed(0)
    layer, values = kind.of(nn.Linear(64, 32, dtype=torch.bfloat16), CPU), torch.randn(1, 40, 64).bfloat16()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(values), layer(values))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_on_this_gpu(kind: type[QuantizedLinear]) -> None:
    """Right where the card has the instruction, else refused with the reason; int8 to the bit as on the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    device = torch.device("cuda:0")
    if (reason := kind.why_not(device)) is not None:
        pytest.skip(reason)
    torch.manual_seed(0)
    linear, values = nn.Linear(3072, 14336, dtype=torch.bfloat16), torch.randn(1, 300, 3072).bfloat16()
    here, there = kind.of(linear, CPU), kind.of(linear, device).to(device)
    assert torch.equal(here.weight.float(), there.weight.float().cpu())
    if kind is Int8Linear:
        rows, _ = Int8Linear.quantize(values[0])
        assert torch.equal(int_product(rows, here.weight), int_product(rows.to(device), there.weight).cpu())
    assert relative_error(there(values.to(device)).cpu().double(), here(values).double()) < 2**-7


def _steps(quantized: torch.Tensor) -> torch.Tensor:
    """Distance of a quantized value to its neighbours: 1 for integers, 3 bits of mantissa and 2^-9 at least for fp8."""
    if quantized.dtype is torch.int8:
        return torch.ones_like(quantized, dtype=torch.float64)
    exponent = quantized.double().abs().clamp(min=2**-6).log2().floor()
    return 2.0 ** (exponent - 3)


def _predicted_error(kind: type[QuantizedLinear], values: torch.Tensor, weight: torch.Tensor) -> float:
    """Frobenius norm of the product's error: of each operand's variances with the other's squares, in each column."""

    def variance(operand: torch.Tensor) -> torch.Tensor:
        quantized, scale = kind.quantize(operand)
        return ((_steps(quantized) * scale.double()) ** 2 / 12).sum(dim=0)

    squares = [(operand.double() ** 2).sum(dim=0) for operand in (values, weight)]
    return float((variance(values) * squares[1] + variance(weight) * squares[0]).sum().sqrt())


def _seen(block: nn.Module, model: Any) -> Iterator[tuple[nn.Linear, torch.Tensor]]:
    """The block's linears, each with the activations (tokens, width) that it gets in one forward of the model."""
    linears = quantized_linears(block)
    seen: dict[nn.Linear, torch.Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(lambda module, values: seen.update({module: values[0][0]}))
        for linear in linears
    ]
    forward(model)
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(linears) == 8
    yield from seen.items()
