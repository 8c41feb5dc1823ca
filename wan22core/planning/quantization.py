"""Which precisions to try for the transformer, in which order, and how long each may take."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from wan22core.model.quantize_preference import QuantizationPreference
from wan22core.specs import BenchmarkSpec, Precision, Recipe

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
_READ_GIB_S = 0.5
"""Of a slow disk: where main memory can't hold the transformer, its files are read in this stage."""
_QUANTIZED_GIB_S = 1.0
"""GiB of fp32 files, on two cores without a GPU: docs/quantization.md has the measurement."""
_SHORTEST_S = 60.0
_TIMES_PREDICTED = 5.0


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
    """What the recipe asks for."""
    attempts: tuple[QuantizationAttempt, ...] = Field(min_length=1)
    """What is tried; the first is another one than requested where a preference says so."""
    remark: str | None = None
    """Why the attempts are not the recipe's; None where they are."""

    @property
    def bound_s(self) -> float:
        """Longest time that quantizing may take, all fallbacks together."""
        return sum(attempt.deadline_s for attempt in self.attempts if attempt.quantizes)


def quantization_deadline_s(precision: Precision, size_gib: float) -> float:
    """The shorter of two bounds; ``size_gib`` is the size of the component's files as read.

    The original's: 300 s x max(1, size/5 GiB) x a factor of the method. Ours: five times what it takes with a slow disk
    and two cores, which no card needs, and a minute at least.
    """
    outer = _BASE_S * max(1.0, size_gib / _BASE_SIZE_GIB) * _METHOD_FACTOR[precision]
    predicted = size_gib / _READ_GIB_S + (size_gib / _QUANTIZED_GIB_S if precision in _QUANTIZED else 0.0)
    return min(outer, max(_SHORTEST_S, _TIMES_PREDICTED * predicted))


def plan_quantization(
    spec: BenchmarkSpec, transformer_size_gib: float, preference: QuantizationPreference | None = None
) -> QuantizationPlan:
    """The precision to run under its deadline, each fallback under half of its own.

    ``preference`` is the user's for this model; it changes what recipes that quantize try, and no others.
    """
    chain = precisions(spec.recipe, None)
    preferred = precisions(spec.recipe, preference)
    attempts: list[QuantizationAttempt] = []
    for position, precision in enumerate(preferred):
        bound = spec.deadlines.quantize_s or quantization_deadline_s(precision, transformer_size_gib)
        attempts.append(
            QuantizationAttempt(
                precision=precision,
                quantizes=precision in _QUANTIZED,
                deadline_s=bound if position == 0 else bound / 2,
            )
        )
    remark = None
    if preferred != chain:
        remark = (
            f"The recipe tries {_in_words(chain)}; {_in_words(preferred)} is what the preference "
            f"{preference} for {spec.weights.model} makes of it (wan22 weights prefer)."
        )
    return QuantizationPlan(requested=chain[0], attempts=tuple(attempts), remark=remark)


def precisions(recipe: Recipe, preference: QuantizationPreference | None) -> tuple[Precision, ...]:
    """What is tried: the recipe's chain, where the user prefers it without quantization or another method first."""
    chain = (recipe.transformer_precision, *recipe.fallbacks)
    if preference is QuantizationPreference.OFF:
        working = tuple(precision for precision in chain if precision not in _QUANTIZED)
        return working or (Precision.BF16,)
    if preference is None or chain[0] not in _QUANTIZED:
        return chain
    first = Precision(preference.value)
    return (first, *(precision for precision in chain if precision is not first))


def _in_words(chain: tuple[Precision, ...]) -> str:
    return ", then ".join(precision.value for precision in chain)
