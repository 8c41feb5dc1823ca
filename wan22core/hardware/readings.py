"""One way to write a reading: the value, or the reason why there is none."""

from __future__ import annotations

from typing import TypeVar

from wan22core.records import Reading

T = TypeVar("T")


def known(value: T | None, source: str, reason: str) -> Reading[T]:
    """``value`` from ``source``; missing for ``reason`` where it is None."""
    if value is None:
        return Reading(value=None, source=source, reason=reason)
    return Reading(value=value, source=source)
