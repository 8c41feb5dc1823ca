"""What was judged."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from wan22core.records.base import Record
from wan22core.targets import Severity


class VerdictValue(StrEnum):
    """Three values: a limit met, missed, or nothing known."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    NOT_MEASURED = "not_measured"


class TargetVerdict(Record):
    """One target, judged."""

    name: str
    metric: str
    comparison: str
    limit: float
    unit: str
    severity: Severity
    observed: float | None
    """The worst repeat."""
    median: float | None
    n: int
    """Repeats with a value."""
    verdict: VerdictValue
    reason: str | None
    """Why it was not measured, or what it missed by."""


class RegressionVerdict(Record):
    """One metric of a run beside the same metric of a baseline."""

    metric: str
    unit: str
    baseline: float | None
    """Median of the baseline's repeats."""
    observed: float | None
    """Median of this run's repeats."""
    ratio: float | None
    """Observed by baseline; above 1 is worse."""
    ratio_low: float | None
    """Lower end of its 95 % interval."""
    ratio_high: float | None
    allowed: float
    """Share by which it may be worse."""
    n_baseline: int
    n: int
    severity: Severity
    verdict: VerdictValue
    reason: str | None
    """What was found, or why nothing can be said."""


class IntegrityFailure(Record):
    """One expectation about the records that does not hold."""

    expectation: str
    """What should hold, as a sentence."""
    table: str
    column: str | None
    observed: str | None
    could_not_evaluate: bool
    """True when the expectation itself broke (wrong type, missing column)."""


class Integrity(Record):
    """May these rows be believed?"""

    verdict: Literal["pass", "fail"]
    failed: list[IntegrityFailure]
    evaluated: int
    """Expectations that were evaluated."""


class Judgement(Record):
    """Everything that was judged about a run."""

    integrity: Integrity
    targets: list[TargetVerdict]
    smoke_limits: list[TargetVerdict]
    regressions: list[RegressionVerdict] = Field(default_factory=list)
    """Beside a baseline, where one was named."""


class RunState(StrEnum):
    """The state a run ends in, worst first."""

    INTEGRITY_FAILED = "IntegrityFailed"
    BROKEN = "Broken"
    TARGET_MISSED = "TargetMissed"
    NOT_MEASURED = "NotMeasured"
    PASS = "Pass"  # noqa: S105


GATE_EXIT_CODES: dict[RunState, int] = {
    RunState.PASS: 0,
    RunState.TARGET_MISSED: 1,
    RunState.NOT_MEASURED: 3,
    RunState.BROKEN: 4,
    RunState.INTEGRITY_FAILED: 5,
}
