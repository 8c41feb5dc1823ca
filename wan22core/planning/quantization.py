"""Which precisions to try for the transformer, in which order, and how long each may take."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from wan22core.specs import BenchmarkSpec, Precision

_BASE_S = 300.0
_BASE_SIZE_GIB = 5.0
_METHOD_FACTOR = {
    Precision.NONE: 0.1,
    Precision.FP32: 0.1,
    Precision.FP16: 1.0,
    Precision.BF16: 1.5,
    Precision.FP8: 2.0,
    Precision.INT8: 3.0,
}
_QUANTIZED = frozenset({Precision.INT8, Precision.FP8})


class QuantizationAttempt(BaseModel):
    """One precision to try from clean weights in a fresh worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
    """Transformer precision."""
    quantizes: bool
    """Whether a quantization follows the load; the other precisions are cast while loading."""
    deadline_s: float = Field(gt=0)
    """Seconds after which the attempt is killed."""


class QuantizationPlan(BaseModel):
    """The asked precision and its fallbacks, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requested: Precision
    attempts: tuple[QuantizationAttempt, ...] = Field(min_length=1)

    @property
    def bound_s(self) -> float:
        """Longest time that quantizing may take, all fallbacks together."""
        return sum(attempt.deadline_s for attempt in self.attempts if attempt.quantizes)


def quantization_deadline_s(precision: Precision, size_gib: float) -> float:
    """Outer bound: 300 s x max(1, size/5 GiB) x a factor of the method (the original's formula).

    ``size_gib`` is the size of the component's files as read.
    """
    return _BASE_S * max(1.0, size_gib / _BASE_SIZE_GIB) * _METHOD_FACTOR[precision]


def plan_quantization(spec: BenchmarkSpec, transformer_size_gib: float) -> QuantizationPlan:
    """The asked precision under its deadline, each fallback under half of its own."""
    recipe = spec.recipe
    attempts: list[QuantizationAttempt] = []
    for position, precision in enumerate((recipe.transformer_precision, *recipe.fallbacks)):
        bound = spec.deadlines.quantize_s or quantization_deadline_s(precision, transformer_size_gib)
        attempts.append(
            QuantizationAttempt(
                precision=precision,
                quantizes=precision in _QUANTIZED,
                deadline_s=bound if position == 0 else bound / 2,
            )
        )
    return QuantizationPlan(requested=recipe.transformer_precision, attempts=tuple(attempts))
