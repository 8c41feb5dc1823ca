"""What may be expected of a value: the words and the condition in one place, so that they can't differ."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Expectation:
    """A condition on a value; a value that is not known never holds."""

    text: str
    condition: Callable[[Any], bool]

    def holds(self, value: object) -> bool:
        return value is not None and self.condition(value)


def equal(wanted: object) -> Expectation:
    return Expectation(str(wanted), lambda value: bool(value == wanted))


def at_least(low: float) -> Expectation:
    return Expectation(f">= {low:g}", lambda value: value >= low)


def below(limit: float) -> Expectation:
    return Expectation(f"< {limit:g}", lambda value: value < limit)


def between(low: float, high: float) -> Expectation:
    return Expectation(f"{low:g} to {high:g}", lambda value: low <= value <= high)


def one_of(wanted: Collection[object]) -> Expectation:
    return Expectation(f"one of {', '.join(map(str, wanted))}", lambda value: value in wanted)


def true(words: str) -> Expectation:
    """A condition that was computed by who looked; ``words`` say what it is."""
    return Expectation(words, bool)
