"""What all records have in common: frozen, closed, and a missing value that says why it is missing."""

from __future__ import annotations

from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

T = TypeVar("T")


class Record(BaseModel):
    """Frozen, and closed to fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reading(Record, Generic[T]):
    """A value with where it comes from, or None with the reason why there is none."""

    value: T | None
    """What was read."""
    source: str
    """The interface that was asked, e.g. ``nvml`` or ``/proc/cpuinfo``."""
    reason: str | None = None
    """Why there is no value."""

    @model_validator(mode="after")
    def _missing_has_a_reason(self) -> Self:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a reading has either a value or a reason for having none")
        return self

    @classmethod
    def missing(cls, source: str, reason: str) -> Self:
        """No value, and why."""
        return cls(value=None, source=source, reason=reason)
