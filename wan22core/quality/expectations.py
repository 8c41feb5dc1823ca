"""What can be expected of a table, by name: each a Great Expectations class with a sentence of what it means."""

from __future__ import annotations

from typing import Any

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

from wan22core.targets import Target


class RowsArePresent(gxe.ExpectTableRowCountToBeBetween):
    """Row-level expectations pass on an empty table, so each suite counts its rows first."""


class RowsAreComplete(gxe.ExpectTableRowCountToEqual):
    """As many rows as were asked for."""


class IsPresent(gxe.ExpectColumnValuesToNotBeNull):
    """No missing value."""


class IsPositive(gxe.ExpectColumnMinToBeBetween):
    """Above zero: a zero here is a measurement that did not happen."""


class IsNotBelow(gxe.ExpectColumnMinToBeBetween):
    """No value below a bound."""


class IsNotAbove(gxe.ExpectColumnMaxToBeBetween):
    """No value above a bound."""


class IsOneOf(gxe.ExpectColumnValuesToBeInSet):
    """Nothing but the named values."""


class TargetIsMetFromBelow(gxe.ExpectColumnMaxToBeBetween):
    """The worst repeat stays under its limit."""


class TargetIsMetFromAbove(gxe.ExpectColumnMinToBeBetween):
    """The worst repeat reaches its limit."""


def rows_at_least(count: int, what: str) -> Expectation:
    return RowsArePresent(min_value=count, description=f"there are at least {count} {what}")


def rows_exactly(count: int, what: str) -> Expectation:
    return RowsAreComplete(value=count, description=f"there are exactly {count} {what}")


def present(column: str, what: str) -> Expectation:
    return IsPresent(column=column, description=f"{what} is present")


def positive(column: str, what: str) -> Expectation:
    return IsPositive(column=column, min_value=0, strict_min=True, description=f"{what} is above zero")


def not_below(column: str, bound: float, sentence: str) -> Expectation:
    return IsNotBelow(column=column, min_value=bound, description=sentence)


def not_above(column: str, bound: float, sentence: str) -> Expectation:
    return IsNotAbove(column=column, max_value=bound, description=sentence)


def one_of(column: str, values: list[Any], sentence: str) -> Expectation:
    return IsOneOf(column=column, value_set=values, description=sentence)


def meets(target: Target) -> Expectation:
    """The target on the worst row; ``meta`` carries its name back with the result."""
    sentence = f"{target.name}: {target.metric} {target.comparison} {target.limit:g} {target.unit}"
    common: dict[str, Any] = {
        "column": target.metric,
        "description": sentence,
        "severity": target.severity.value,
        "meta": {"target": target.name},
    }
    if target.comparison == ">=":
        return TargetIsMetFromAbove(min_value=target.limit, **common)
    return TargetIsMetFromBelow(max_value=target.limit, strict_max=target.comparison == "<", **common)
