"""How fast weights get from main memory to a GPU; a job of a child process, because it needs torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from wan22core.errors import IncompatibleHardwareError
from wan22core.hardware.rates import CopyRates
from wan22core.records import Reading
from wan22core.statistics import summarize
from wan22core.worker.host import resolve_device, torch_facts

_COPY_BYTES = 512 * 2**20
_REPEATS = 5
_SOURCE = f"torch, median of {_REPEATS} copies"


def copy_rates_job(report: object, device: str, copy_bytes: int = _COPY_BYTES) -> dict[str, Any]:
    """``CopyRates`` of a torch device such as ``cuda:0``, with ``copy_bytes`` arriving there a copy.

    Takes ``copy_bytes`` on the device and five times as much in main memory. Raises ``IncompatibleHardwareError`` for
    the CPU, and for a device that torch does not have.
    """
    del report  # it takes seconds
    device = resolve_device(device, torch_facts())
    if device == "cpu":
        raise IncompatibleHardwareError(
            "Copies to a GPU can't be measured on the device cpu.", next_action="Give a CUDA device, such as cuda:0."
        )
    return _measured(device, copy_bytes).model_dump(mode="json")


def _measured(device: str, copy_bytes: int) -> CopyRates:
    import torch

    # ones, not empty: pages that nobody wrote to share one zero page, which is read from the cache
    pageable = torch.ones(copy_bytes // 2, dtype=torch.bfloat16)
    uncast = torch.ones(copy_bytes // 2, dtype=torch.float32)
    target = torch.empty(copy_bytes // 2, dtype=torch.bfloat16, device=device)
    with torch.cuda.device(device):
        pinned = pageable.pin_memory()

    def rate(copy: Callable[[], object]) -> Reading[float]:
        copy()  # the first one allocates what the driver copies through
        times_s = []
        for _ in range(_REPEATS):
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            copy()
            torch.cuda.synchronize(device)
            times_s.append(time.perf_counter() - began)
        median_s = summarize(times_s).median
        assert median_s is not None
        return Reading[float](value=target.nbytes / median_s, source=_SOURCE)

    return CopyRates(
        device_name=torch.cuda.get_device_name(device),
        copied_bytes=target.nbytes,
        pageable_bytes_s=rate(lambda: target.copy_(pageable)),
        cast_bytes_s=rate(lambda: target.copy_(uncast.to(torch.bfloat16))),
        pinned_bytes_s=rate(lambda: target.copy_(pinned, non_blocking=True)),
    )
