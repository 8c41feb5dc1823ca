"""What one dump says: readings by field name, and how a cell of text becomes one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wan22core.records import MigInstance, Reading

T = TypeVar("T")
Fields = dict[str, Reading[Any]]
"""Readings by the field names of the profiles in ``records/hardware.py``."""

_UNAVAILABLE = re.compile(
    r"^\[?(n/a|err!|-|none|unknown.*|not supported|not available|not found|gpu is lost|"
    r"gpu requires reset|insufficient permissions|requested functionality has been deprecated)\]?$",
    re.IGNORECASE,
)


@dataclass
class GpuFacts:
    """One GPU in one dump."""

    index: int | None
    """The number that the dump gives it; None where it gives none, and the position counts."""
    fields: Fields = field(default_factory=dict)
    lost: bool = False


@dataclass
class Facts:
    """All that one dump says."""

    cpu: Fields = field(default_factory=dict)
    memory: Fields = field(default_factory=dict)
    gpus: list[GpuFacts] = field(default_factory=list)
    mig_instances: list[MigInstance] = field(default_factory=list)
    gpu_vendor: str | None = None
    errors: list[str] = field(default_factory=list)
    """Codes: ``driver_not_running``, ``gpu_lost``..."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what could not be read."""


def reading(cell: str | None, source: str, convert: Callable[[str], T | None]) -> Reading[T]:
    """A cell as a reading; missing with the reason when it is not there, says so itself, or can't be converted."""
    if cell is None:
        return Reading[T].missing(source, "it does not say")
    text = " ".join(cell.split())
    if not text or _UNAVAILABLE.match(text):
        return Reading[T].missing(source, f"it says {text or 'nothing'!r}")
    value = convert(text)
    if value is None:
        return Reading[T].missing(source, f"{text[:60]!r} is not what stands there as a rule")
    return Reading[T](value=value, source=source)


def text(cell: str) -> str | None:
    """The words, without a remark in brackets that a newer tool puts behind a deprecated line."""
    return re.sub(r"\s*\[.*$", "", cell) or None


def name(cell: str) -> str | None:
    """A product's name; its brackets belong to it."""
    return cell or None


def whole(cell: str) -> int | None:
    """A whole number alone."""
    return int(cell) if re.fullmatch(r"\d{1,18}", cell) else None


def mib(cell: str) -> int | None:
    """``16376 MiB``, ``16376MiB`` or the bare number of a table without units."""
    match = re.fullmatch(r"(\d{1,12})\s*(MiB)?", cell)
    return int(match[1]) if match else None


def watts(cell: str) -> float | None:
    """``320.00 W``, ``320W``."""
    return _decimal(cell, "W")


def celsius(cell: str) -> float | None:
    """``26 C``, ``26C``, ``26``."""
    return _decimal(cell, "C")


def mhz(cell: str) -> int | None:
    """``2505 MHz``."""
    match = re.fullmatch(r"(\d{1,6})\s*(MHz)?", cell, re.IGNORECASE)
    return int(match[1]) if match else None


def enabled(cell: str) -> bool | None:
    """``Enabled`` and ``Disabled``."""
    return {"enabled": True, "disabled": False}.get(cell.lower())


def capability(cell: str) -> str | None:
    """``8.9``."""
    return cell if re.fullmatch(r"\d{1,2}\.\d", cell) else None


def version(cell: str) -> str | None:
    """``580.159.04``, without a remark behind it."""
    match = re.match(r"\d+(\.\d+)+", cell)
    return match[0] if match else None


def kib_as_mib(kib: str, what: str, source: str) -> Reading[int]:
    """KiB (that many tools call kB) as MiB; the source names the number it comes from."""
    if len(kib) > 15:
        return Reading[int].missing(source, f"{what} {kib[:20]}... kB is no amount of memory")
    return Reading[int](value=int(kib) // 1024, source=f"{source}: {what} {kib} kB")


def _decimal(cell: str, unit: str) -> float | None:
    match = re.fullmatch(rf"(-?\d{{1,9}}(?:\.\d+)?)\s*{unit}?", cell)
    return float(match[1]) if match else None
