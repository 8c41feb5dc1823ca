"""The rates that a plan counts with: given by hand, else measured on this machine, else assumed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import is_named
from wan22core.hardware.rates import MachineRates
from wan22core.planning.time_model import GIVEN, Rates

_GIGA = 1e9


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
        chosen |= _measured_disk(measured) | _measured_copies(measured, spec)
    if disk_gb_s is not None:
        chosen |= {"disk_bytes_s": disk_gb_s * _GIGA, "disk_source": GIVEN}
    if copy_gb_s is not None:
        copied = copy_gb_s * _GIGA
        chosen |= {"pageable_bytes_s": copied, "cast_bytes_s": copied, "copy_source": GIVEN}
    return Rates(**chosen)


def _measured_disk(measured: MachineRates) -> dict[str, Any]:
    disk = measured.disk
    found = disk.cold_bytes_s.value or disk.direct_bytes_s.value
    return {} if found is None else {"disk_bytes_s": found, "disk_source": _measured_on(measured.disk_measured_at)}


def _measured_copies(measured: MachineRates, spec: GpuSpec) -> dict[str, Any]:
    copies, asked_at = measured.copies, measured.copies_measured_at
    pageable, cast, name = copies.pageable_bytes_s.value, copies.cast_bytes_s.value, copies.device_name
    if pageable is None or cast is None or name is None or asked_at is None:
        return {}
    pinned = copies.pinned_bytes_s.value if is_named(spec, name) else None
    found = {"pageable_bytes_s": pageable, "cast_bytes_s": cast, "pinned_bytes_s": pinned}
    return {**found, "copy_source": _measured_on(asked_at)}


def _measured_on(at: datetime) -> str:
    return f"measured {at.date()}"
