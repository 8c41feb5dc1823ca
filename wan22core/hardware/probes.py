"""The probe that reads a GPU while it is measured: NVML's, or one that another package brings."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from wan22core.errors import DeviceError
from wan22core.hardware.nvml import GpuProbe, open_gpu

ENTRY_POINTS = "wan22.gpu_probes"
"""Group under which another package names a function that takes a uuid, and returns a ``GpuProbe`` for a GPU that it
knows and None for any other."""


def open_probe(uuid: str) -> GpuProbe:
    """A reader for the GPU of this uuid; other packages are asked first, in the order of their names, then NVML.

    Raises ``DeviceError`` for a package whose probe can't be used: a run that is not watched must not pass for one that
    is; and where NVML is missing or does not know the GPU. The caller closes the probe.
    """
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        if (probe := _opened(point, uuid)) is not None:
            return probe
    return open_gpu(uuid)


def _opened(point: EntryPoint, uuid: str) -> GpuProbe | None:
    try:
        probe = point.load()(uuid)
    except Exception as error:
        raise _unusable(point, f"{type(error).__name__}: {error}") from error
    if probe is None or isinstance(probe, GpuProbe):
        return probe
    raise _unusable(point, f"it gives {type(probe).__name__}, which has not the methods of a GpuProbe")


def _unusable(point: EntryPoint, why: str) -> DeviceError:
    return DeviceError(
        f"The GPU probe {point.name} = {point.value} can't be used: {why}.",
        next_action="Repair the package that it is from, or uninstall it.",
    )
