"""The limits of this machine's main memory, and that what they leave can be had."""

from __future__ import annotations

from wan22core.hardware.memory import memory_headroom
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, between

_TAKEN_SHARE = 0.05
"""Of what is left: enough to be seen, and no harm to others."""
_MOST_MIB = 1024.0
_LEAST_LEFT_MIB = 64


def limits(case: Case) -> None:
    """What this process may take is what the system and its control groups leave; a child takes a little of it."""
    case.look_at("this machine")
    memory = case.context.here.memory
    total, limit = memory.total_mib.value, memory.limit_mib.value
    case.expect("memory, MiB", at_least(1), memory.total_mib)
    if total is not None:
        case.expect("available, MiB", between(0, total), memory.available_mib)
    if total is None or limit is None:
        case.fact("limit of the control groups, MiB", memory.limit_mib)
    else:
        case.expect("limit of the control groups, MiB", between(1, total), limit)
    asked_mib = min(_headroom_mib(case) * _TAKEN_SHARE, _MOST_MIB)
    case.require_no_benchmark()
    found = case.job("wan22core.worker.exercise:main_memory_job", {"mib": asked_mib})
    case.expect("taken by a child, MiB", at_least(asked_mib * 0.99), found["taken_mib"])
    most = [each for each in (total, limit) if each is not None]
    if most:
        case.expect("and below the limit, MiB", between(0, min(most)), found["resident_mib"])


def _headroom_mib(case: Case) -> int:
    left = memory_headroom()
    if left.value is None:
        case.not_measured(f"how much memory is left is unknown: {left.reason}", "See wan22 hardware.")
    case.fact("left by the system and its control groups, MiB", left)
    if left.value < _LEAST_LEFT_MIB:
        case.not_measured(f"{left.value} MiB of memory are left, too few to take any", "Run it again with more.")
    return left.value
