"""Why a stage ended: what the child raised, or what its exit code and the kernel's counters say of its death."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from wan22core.errors import (
    CudaOutOfMemoryError,
    KernelOutOfMemoryError,
    SegmentationFaultError,
    StageFailedError,
    Wan22Error,
    WorkerError,
    WorkerKilledError,
)

_MEMORY_FAULTS = {-11: "segmentation fault", -7: "bus error", 0xC0000005: "access violation"}  # the last on Windows


def death_of(
    stage: str, returncode: int | None, oom_kills_before: int | None, oom_kills_after: int | None, log_path: Path
) -> WorkerError:
    """The error that a child's death means. Out of memory by the kernel needs a counter that rose."""
    look = f"Look at the worker's log {log_path}"
    details = {"stage": stage, "returncode": returncode, "log": str(log_path)}
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


def failure_of(error: Exception, stage: str) -> Wan22Error:
    """The error that an exception in a stage means: ours as it is, torch's out of memory by its class."""
    if isinstance(error, Wan22Error):
        return error
    text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:500]}"
    details = {"stage": stage, "type": type(error).__name__}
    torch = sys.modules.get("torch")  # it is never imported for this
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return CudaOutOfMemoryError(
            f"The device ran out of memory in {stage}: {text}",
            next_action="Choose a recipe that needs less memory, a smaller workload, or free the device.",
            details=details,
        )
    return StageFailedError(
        f"The stage {stage} failed with {text}", next_action="The traceback is in the log.", details=details
    )


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        try:
            return f"the signal {signal.Signals(-returncode).name}"
        except ValueError:
            return f"the signal {-returncode}"
    return f"exit code {returncode}"
