"""What follows from a run: settings that were applied, alerts while it ran, what to change."""

from __future__ import annotations

from enum import StrEnum

from wan22core.records.base import Record


class AppliedSetting(Record):
    """One setting of the host: what was asked for, and what the process said of itself afterwards."""

    name: str
    """As in ``HostSettings``."""
    asked: str
    """The value that was asked for."""
    read_back: str | None
    """The value that was in force after it was applied, None where it can't be read."""
    held: bool
    """Whether the value in force is the one that was asked for."""
    reason: str | None = None
    """Why it does not hold, or why it can't be read back."""


class AlertLevel(StrEnum):
    """How bad it is."""

    WARNING = "warning"
    CRITICAL = "critical"


class Alert(Record):
    """One threshold that was crossed, from when until when."""

    quantity: str
    """What is watched: ``gpu_temperature``, ``vram``, ``ram``..."""
    level: AlertLevel
    """The worst level that it reached."""
    threshold: float
    """The threshold of that level."""
    worst: float
    """The worst value while the alert was open."""
    unit: str
    opened_s: float
    """On the run's clock."""
    resolved_s: float | None = None
    """None while it is open."""
    action: str | None = None
    """What was done about it, or advised."""


class Recommendation(Record):
    """One thing to change, why, and what it should bring."""

    rule: str
    """Identifier of the rule."""
    because: str
    """The measured value that triggered it beside its threshold, in a sentence."""
    action: str
    """What to do, in a sentence."""
    expected: str
    """What it should bring by the planner, or what to measure where the planner can't tell."""
    expected_gain: float | None = None
    """Share of the generation's time that it should save; None where it can't be told."""
    docs: str
    """Where it is explained: a file of the documentation and its anchor."""
