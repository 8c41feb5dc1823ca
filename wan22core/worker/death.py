"""Why a child died, from its exit code and the kernel's counters."""

from __future__ import annotations

import signal
from pathlib import Path

from wan22core.errors import KernelOutOfMemoryError, SegmentationFaultError, WorkerError, WorkerKilledError

_MEMORY_FAULTS = {-11: "segmentation fault", -7: "bus error", 0xC0000005: "access violation"}  # the last on Windows


def death_of(
    stage: str, returncode: int | None, oom_kills_before: int | None, oom_kills_after: int | None, log_path: Path
) -> WorkerError:
    """The error that a child's death means. Out of memory by the kernel needs a counter that rose."""
    look = f"Look at the worker's log {log_path}"
    details = {"stage": stage, "returncode": returncode}
    if returncode in _MEMORY_FAULTS:
        return SegmentationFaultError(
            f"The worker crashed in {stage}: {_MEMORY_FAULTS[returncode]}.",
            next_action=f"{look}; a driver, torch or an extension is broken: reinstall what changed last.",
            details=details,
        )
    if returncode == -9 and oom_kills_before is not None and (oom_kills_after or 0) > oom_kills_before:
        return KernelOutOfMemoryError(
            f"The kernel killed the worker in {stage}: main memory was exhausted.",
            next_action="Free memory, raise the container's limit, or choose a recipe that needs less.",
            details=details,
        )
    if returncode == -9:
        return WorkerKilledError(
            f"The worker was killed in {stage}; the cause was not seen.",
            next_action=f"{look} and at the system's journal (dmesg) for an out-of-memory kill.",
            details=details,
        )
    return WorkerKilledError(
        f"The worker ended in {stage} with {_ending(returncode)}.", next_action=f"{look}.", details=details
    )


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        try:
            return f"the signal {signal.Signals(-returncode).name}"
        except ValueError:
            return f"the signal {-returncode}"
    return f"exit code {returncode}"
