"""The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves to a process, before it has asked CUDA."""

from __future__ import annotations

from collections.abc import Sequence

from wan22core.records import GpuProfile

VARIABLE, ORDER_VARIABLE = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_BUS_ORDER = "PCI_BUS_ID"


def visible_gpus(gpus: Sequence[GpuProfile], said: str | None, order: str | None = None) -> list[GpuProfile]:
    """Those of ``gpus`` that may be meant by ``said``, the variable's value; ``order`` is ``CUDA_DEVICE_ORDER``'s.

    As the CUDA programming guide has it: indices or UUIDs, which may be cut as long as one GPU begins so; what comes
    after an entry that means no GPU is hidden, so an empty value hides all. Where it can't be told from here which GPU
    an entry means, none is hidden: an index counts in CUDA's order, which is the driver's for ``PCI_BUS_ID`` and for
    GPUs of one name only, and a MIG instance does not name its GPU.
    """
    if said is None:
        return list(gpus)
    in_driver_order = order == _BUS_ORDER or len({gpu.name.value for gpu in gpus}) == 1
    found: list[GpuProfile] = []
    for entry in (part.strip() for part in said.split(",")):
        if entry.startswith("MIG-") or (entry.isdecimal() and int(entry) < len(gpus) and not in_driver_order):
            return list(gpus)
        meant = [gpu for gpu in gpus if entry and _is_meant(entry, gpu)]
        if len(meant) != 1:
            break
        found += meant
    return found


def _is_meant(entry: str, gpu: GpuProfile) -> bool:
    if entry.isdecimal():
        return gpu.index == int(entry)
    return entry.startswith("GPU-") and (gpu.uuid.value or "").startswith(entry)
