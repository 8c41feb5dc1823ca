"""The figures of health as data: what is watched, where a value begins to matter, and for how long it must.

docs/health.md holds the same table with the source of each figure.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from wan22core.records import AlertLevel
from wan22core.records.base import Record


class Quantity(StrEnum):
    """What is watched."""

    GPU_TEMPERATURE_MARGIN = "gpu_temperature_margin"
    GPU_TEMPERATURE = "gpu_temperature"
    """Watched only where NVML gives no margin."""
    GPU_THERMAL_THROTTLING = "gpu_thermal_throttling"
    """1 while the card lowers its clocks because of heat, else 0."""
    VRAM = "vram"
    """Use of the physical card by everybody."""
    ALLOCATOR_RETRIES = "allocator_retries"
    """Of a stage: allocations that succeeded only after torch had given its cache back."""
    CPU = "cpu"
    """All processors of the machine; not watched in a run on the CPU, whose work it is to fill them."""
    RAM = "ram"
    DISK = "disk"


class ActionKind(StrEnum):
    """What the session is asked to do."""

    ADVISE_NEXT_PLACEMENT = "advise_next_placement"
    STOP_AT_STAGE_END = "stop_at_stage_end"
    STOP_WORKER = "stop_worker"


class Line(Record):
    """A threshold, and how long a value must be there before it counts."""

    at: float
    """Reached at this value or beyond it."""
    level: AlertLevel
    hold_s: float = Field(default=0.0, ge=0)
    """Seconds of data; 0 believes one sample."""
    action: ActionKind | None = None


class Watch(Record):
    """What is watched of one quantity."""

    quantity: Quantity
    unit: str
    low_is_bad: bool = False
    lines: tuple[Line, ...] = Field(min_length=1)
    """The mildest first."""
    band: float = Field(gt=0)
    """How far behind a line a value must be back before the line counts as left."""
    calm_s: float = Field(ge=0)
    """Seconds of data behind the band of the mildest line that resolve the alert."""

    @model_validator(mode="after")
    def _mildest_first(self) -> Self:
        if any(self.excess(harder.at, milder.at) < 0 for milder, harder in pairwise(self.lines)):
            raise ValueError(f"the lines of {self.quantity} do not stand with the mildest first")
        return self

    def excess(self, value: float, at: float) -> float:
        """How far ``value`` is beyond ``at``; less than zero on the good side."""
        return at - value if self.low_is_bad else value - at

    def is_beyond(self, value: float, at: float) -> bool | None:
        """None within the band, where neither is said."""
        excess = self.excess(value, at)
        return True if excess >= 0 else False if excess <= -self.band else None


_WARNING, _CRITICAL = AlertLevel.WARNING, AlertLevel.CRITICAL

WATCHES = (
    Watch(
        quantity=Quantity.GPU_TEMPERATURE_MARGIN,
        unit="C",
        low_is_bad=True,
        lines=(
            Line(at=3, level=_WARNING),
            Line(at=0, level=_CRITICAL, hold_s=10),
            Line(at=-2, level=_CRITICAL, hold_s=2, action=ActionKind.STOP_AT_STAGE_END),
            Line(at=-2, level=_CRITICAL, hold_s=30, action=ActionKind.STOP_WORKER),
        ),
        band=2,
        calm_s=10,
    ),
    Watch(
        quantity=Quantity.GPU_TEMPERATURE,
        unit="C",
        lines=(
            Line(at=80, level=_WARNING),
            Line(at=85, level=_CRITICAL, hold_s=10, action=ActionKind.STOP_AT_STAGE_END),
            Line(at=85, level=_CRITICAL, hold_s=40, action=ActionKind.STOP_WORKER),
        ),
        band=2,
        calm_s=10,
    ),
    Watch(
        quantity=Quantity.GPU_THERMAL_THROTTLING,
        unit="",
        lines=(Line(at=1, level=_CRITICAL),),
        band=1,
        calm_s=10,
    ),
    Watch(
        quantity=Quantity.VRAM,
        unit="%",
        lines=(
            Line(at=85, level=_WARNING),
            Line(at=90, level=_WARNING, action=ActionKind.ADVISE_NEXT_PLACEMENT),
            Line(at=95, level=_CRITICAL),
        ),
        band=2,
        calm_s=10,
    ),
    Watch(
        quantity=Quantity.ALLOCATOR_RETRIES,
        unit="",
        lines=(Line(at=1, level=_WARNING, action=ActionKind.ADVISE_NEXT_PLACEMENT),),
        band=1,
        calm_s=0,
    ),
    Watch(
        quantity=Quantity.CPU,
        unit="%",
        lines=(Line(at=85, level=_WARNING, hold_s=30), Line(at=95, level=_CRITICAL, hold_s=30)),
        band=10,
        calm_s=30,
    ),
    Watch(
        quantity=Quantity.RAM,
        unit="%",
        lines=(Line(at=85, level=_WARNING), Line(at=95, level=_CRITICAL)),
        band=2,
        calm_s=10,
    ),
    Watch(
        quantity=Quantity.DISK,
        unit="%",
        lines=(Line(at=90, level=_WARNING), Line(at=95, level=_CRITICAL)),
        band=1,
        calm_s=10,
    ),
)
