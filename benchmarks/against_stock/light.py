"""What a step has to compute, and how fast the device's own ceilings would let it."""

from __future__ import annotations

from benchmarks.against_stock.records import ATTENTIONS, CeilingName, Ceilings
from wan22core.planning import work
from wan22core.specs import Architecture, Workload

COUNTED_FOR = Architecture.TI2V_5B.value
"""The architecture whose FLOP are known."""


def forwards_of_step(workload: Workload) -> int:
    """Forwards of the transformer in one step."""
    return work.forwards(workload) // workload.steps


def step_flop(workload: Workload) -> float:
    """FLOP of one step of the 5B model: linears and attention of its forwards."""
    return forwards_of_step(workload) * (work.linear_flop(workload) + work.attention_flop(workload))


def light_s(ceilings: Ceilings | None, workload: Workload) -> list[float]:
    """Seconds of a bf16 step at the ceilings of its products and of the best attention, one for each pair of samples.

    Empty where a ceiling was not measured, or on small shapes only.
    """
    if ceilings is None or ceilings.scaled_down:
        return []
    gemm, attention = ceilings.best_of((CeilingName.GEMM,)), ceilings.best_of(ATTENTIONS)
    if gemm is None or attention is None:
        return []
    linear_flop, attention_flop = work.linear_flop(workload), work.attention_flop(workload)
    return [
        forwards_of_step(workload) * (linear_flop / products + attention_flop / attends)
        for products, attends in zip(gemm.samples, attention.samples, strict=False)
    ]
