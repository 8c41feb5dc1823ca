"""What a validation of the system found, check by check."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from wan22core.records.base import Record
from wan22core.records.verdicts import VerdictValue
from wan22core.targets import Severity


class CheckVerdict(StrEnum):
    """How a check ended; an error counts as a failure, and what was not measured never as a pass."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    ERROR = "error"
    """The check itself broke."""
    NOT_MEASURED = "not_measured"


FAILURES = (CheckVerdict.FAIL, CheckVerdict.ERROR)


class Observation(Record):
    """One thing that a check looked at."""

    what: str
    """What was looked at."""
    expected: str | None
    """What it should be; None for a fact that nothing was expected of."""
    observed: str
    """What it was."""
    held: bool | None
    """Whether it was as expected; None for a fact, and for what is unknown."""


class CheckResult(Record):
    """One check as it ended."""

    id: str
    category: str
    behaviour: str
    """The behaviour of the system that it is a part of."""
    title: str
    """What it proves, in words."""
    severity: Severity
    """How much a failure matters."""
    verdict: CheckVerdict
    reason: str | None
    """What was missed, what broke, or why it was not measured; None on a pass."""
    cause: str | None
    """What checks that did not pass are grouped by: an error's code, what was missed, why it was not measured."""
    next: str | None
    """What to do about it."""
    looked_at: list[str]
    """This machine, a folder of dumps or a packaged snapshot: what the observations are about."""
    on_snapshot: bool
    """Whether a packaged snapshot stood in for hardware that the machine has not."""
    observations: list[Observation]
    wall_s: float
    log: str | None
    """Where the details of an error are."""


class CauseGroup(Record):
    """Checks that did not pass for the same cause."""

    cause: str
    verdict: CheckVerdict
    checks: list[str]


class Finding(Record):
    """A failed check in a line."""

    check: str
    reason: str


class CategoryReport(Record):
    """One category and what its results add up to."""

    name: str
    checks: list[CheckResult]
    success_rate: float | None
    """Passed by all of the category; None for one without checks."""
    causes: list[CauseGroup]
    """Why checks did not pass, failures first."""
    slow_s: float
    """Seconds from which a check is called slow."""
    slow: list[str]
    """The slow checks, the slowest first."""
    critical: list[Finding]
    warnings: list[Finding]
    recommendations: list[str]


class ValidationReport(Record):
    """The document behind ``wan22 validate --json``."""

    schema_version: Literal[1] = 1
    id: str
    created_at: datetime
    host: str
    machine: str
    """``this machine``, or the folder of dumps that took its place."""
    verdict: VerdictValue
    """``fail`` when a check failed or broke, else ``not_measured`` when one was not measured."""
    interrupted: bool
    """Whether it was ended before all checks had run."""
    success_rate: float | None
    """Passed by all checks; None without any."""
    passed_here: int
    """Checks that passed without a packaged snapshot."""
    passed_on_snapshots: int
    """Checks that passed on packaged snapshots: they say nothing of the machine."""
    categories: list[CategoryReport]
    critical: list[Finding] = Field(default_factory=list)
    """Failed checks that are critical, of all categories."""
    warnings: list[Finding] = Field(default_factory=list)
    """The other failed checks."""
    recommendations: list[str] = Field(default_factory=list)
    """What to do, failures first."""
