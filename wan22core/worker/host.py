"""The worker's side of the machine: threads, torch's own view of the devices, and the device that a spec means."""

from __future__ import annotations

import logging
import sys
from typing import Any

from wan22core.errors import IncompatibleHardwareError
from wan22core.hardware.manual import is_meant
from wan22core.records import TorchDevice, TorchFacts

_MIB = 2**20
_log = logging.getLogger(__name__)


def set_threads(threads: int | None) -> int:
    """Sets torch's CPU threads, and returns what torch then says; None leaves torch's own choice."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return int(torch.get_num_threads())


def torch_is_loaded() -> bool:
    """Whether anything in this process imported torch."""
    return "torch" in sys.modules


def torch_facts() -> TorchFacts:
    """torch's version and the CUDA devices that it can use, in its own numbering."""
    import torch

    devices: list[TorchDevice] = []
    reason: str | None = None
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA"
    elif not torch.cuda.is_available():
        reason = "torch finds no usable CUDA device"
    else:
        devices = [_device(index) for index in range(torch.cuda.device_count())]
    return TorchFacts(version=torch.__version__, cuda_version=torch.version.cuda, devices=devices, reason=reason)


def torch_facts_job(report: object) -> dict[str, Any]:
    """``torch_facts`` as a job of a child process."""
    del report  # there is no progress to tell
    return torch_facts().model_dump(mode="json")


def _device(index: int) -> TorchDevice:
    import torch

    properties = torch.cuda.get_device_properties(index)
    uuid = getattr(properties, "uuid", None)
    return TorchDevice(
        index=index,
        name=properties.name,
        uuid=None if uuid is None else str(uuid),
        total_mib=properties.total_memory // _MIB,
        compute_capability=f"{properties.major}.{properties.minor}",
    )


def resolve_device(asked: str, facts: TorchFacts | None, preferred: str | None = None) -> str:
    """``cpu`` or ``cuda:N``; auto takes the preferred GPU (its uuid or name), else the first, else the CPU.

    Raises ``IncompatibleHardwareError`` for a CUDA device that torch does not have.
    """
    devices = facts.devices if facts is not None else []
    if asked == "auto":
        return f"cuda:{_preferred_index(devices, preferred)}" if devices else "cpu"
    if asked == "cpu":
        return "cpu"
    index = int(asked.partition(":")[2] or 0)
    if index >= len(devices):
        why = (facts.reason if facts is not None else "torch was not imported") or f"it has {len(devices)}"
        raise IncompatibleHardwareError(
            f"torch has no device cuda:{index}: {why}.",
            next_action="Use --device cpu, or install the CUDA build of torch for your driver.",
        )
    return f"cuda:{index}"


def _preferred_index(devices: list[TorchDevice], preferred: str | None) -> int:
    """torch's number of the preferred GPU; of the first where nobody prefers one, or torch does not see it."""
    if preferred is None:
        return devices[0].index
    for device in devices:
        if is_meant(preferred, device.name, device.uuid):
            return device.index
    seen = ", ".join(device.name for device in devices)
    _log.warning(
        "torch does not see the preferred GPU %s (CUDA_VISIBLE_DEVICES?) but %s: cuda:0 is used.", preferred, seen
    )
    return devices[0].index
