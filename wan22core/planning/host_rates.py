"""The rates that a plan counts with: given by hand, else measured on this machine, else assumed."""

from __future__ import annotations

from typing import Any

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import is_named
from wan22core.hardware.rates import MachineRates
from wan22core.planning.time_model import Rates

_GIGA = 1e9
_GIVEN = "given"


def host_rates(
    measured: MachineRates | None,
    spec: GpuSpec,
    *,
    disk_gb_s: float | None = None,
    copy_gb_s: float | None = None,
) -> Rates:
    """Rates for a plan of ``spec`` in the machine of ``measured`` (None for another machine, or nothing measured).

    ``disk_gb_s`` and ``copy_gb_s`` are 10^9 bytes a second and go before what was measured. A disk whose page cache
    could not be emptied counts by its O_DIRECT rate. The bus counts for the card that it was measured with only.
    """
    chosen: dict[str, Any] = {}
    if measured is not None:
        day = f"measured {measured.measured_at.date()}"
        chosen |= _measured_disk(measured, day) | _measured_copies(measured, spec, day)
    if disk_gb_s is not None:
        chosen |= {"disk_bytes_s": disk_gb_s * _GIGA, "disk_source": _GIVEN}
    if copy_gb_s is not None:
        copied = copy_gb_s * _GIGA
        chosen |= {"pageable_bytes_s": copied, "cast_bytes_s": copied, "copy_source": _GIVEN}
    return Rates(**chosen)


def _measured_disk(measured: MachineRates, day: str) -> dict[str, Any]:
    disk = measured.disk
    found = disk.cold_bytes_s.value or disk.direct_bytes_s.value
    return {} if found is None else {"disk_bytes_s": found, "disk_source": day}


def _measured_copies(measured: MachineRates, spec: GpuSpec, day: str) -> dict[str, Any]:
    copies = measured.copies
    pageable, cast, name = copies.pageable_bytes_s.value, copies.cast_bytes_s.value, copies.device_name
    if pageable is None or cast is None or name is None:
        return {}
    pinned = copies.pinned_bytes_s.value if is_named(spec, name) else None
    return {"pageable_bytes_s": pageable, "cast_bytes_s": cast, "pinned_bytes_s": pinned, "copy_source": day}
