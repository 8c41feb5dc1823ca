"""What is timed and what is not: the same for a stage in the worker and for functions in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from wan22core.worker.device_memory import DeviceMemory
from wan22core.worker.messages import StageResult

Facts = dict[str, Any]
Action = Callable[[], Callable[[], Facts]]
"""What is timed; it returns the check of its result, which is not."""


def timed(memory: DeviceMemory, action: Action) -> StageResult:
    """Seconds with the device synchronised on both sides, the memory's peaks between them, the facts of the check."""
    memory.synchronize()
    memory.begin()
    began = time.perf_counter()
    verify = action()
    memory.synchronize()
    wall_s = time.perf_counter() - began
    measured = asdict(ended := memory.end()) | {"memory_end": ended.end}
    del measured["end"]
    return StageResult(wall_s=wall_s, **measured, **verify())
