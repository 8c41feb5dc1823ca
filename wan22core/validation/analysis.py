"""What the results of a validation add up to: rates, causes, slow checks, what to do first."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

from wan22core.records import (
    CategoryReport,
    CauseGroup,
    CheckResult,
    CheckVerdict,
    Finding,
    ValidationReport,
    VerdictValue,
)
from wan22core.records.validation import FAILURES
from wan22core.targets import Severity
from wan22core.validation.context import Context

SLOW_S = 60.0
"""A child that imports torch and diffusers takes 5 to 10 s on two cores, and no check starts more than four."""
INTERRUPTED = "interrupted"
"""Cause of the checks that an interrupt kept from running."""
_WORST_FIRST = (CheckVerdict.ERROR, CheckVerdict.FAIL, CheckVerdict.NOT_MEASURED)


def analyse(context: Context, results: Sequence[CheckResult]) -> ValidationReport:
    """The report of these results."""
    names = dict.fromkeys(result.category for result in results)
    return ValidationReport(
        id=context.id,
        created_at=datetime.now(UTC),
        host=platform.node(),
        machine=context.machine_name,
        verdict=_verdict(results),
        interrupted=was_interrupted(results),
        success_rate=_success_rate(results),
        passed_here=sum(not each.on_snapshot for each in _passed(results)),
        passed_on_snapshots=sum(each.on_snapshot for each in _passed(results)),
        categories=[_category(name, [each for each in results if each.category == name]) for name in names],
        critical=_findings(results, Severity.CRITICAL),
        warnings=_findings(results, Severity.WARNING),
        recommendations=_recommendations(results),
    )


def was_interrupted(results: Sequence[CheckResult]) -> bool:
    """Whether a check was cut off: what comes after it is not to be run."""
    return any(result.cause == INTERRUPTED for result in results)


def table_rows(report: ValidationReport) -> list[dict[str, str]]:
    """One row a check, for a table."""
    shown = ("id", "behaviour", "verdict", "reason")
    checks = [check for category in report.categories for check in category.checks]
    return [{name: str(getattr(check, name) or "") for name in shown} for check in checks]


def _category(name: str, results: list[CheckResult]) -> CategoryReport:
    slow = sorted((each for each in results if each.wall_s >= SLOW_S), key=lambda each: -each.wall_s)
    return CategoryReport(
        name=name,
        checks=results,
        success_rate=_success_rate(results),
        causes=_causes(results),
        slow_s=SLOW_S,
        slow=[each.id for each in slow],
        critical=_findings(results, Severity.CRITICAL),
        warnings=_findings(results, Severity.WARNING),
        recommendations=_recommendations(results),
    )


def _verdict(results: Sequence[CheckResult]) -> VerdictValue:
    """Nothing run is nothing proved."""
    verdicts = {result.verdict for result in results}
    if verdicts & set(FAILURES):
        return VerdictValue.FAIL
    return VerdictValue.PASS if verdicts == {CheckVerdict.PASS} else VerdictValue.NOT_MEASURED


def _success_rate(results: Sequence[CheckResult]) -> float | None:
    return len(_passed(results)) / len(results) if results else None


def _passed(results: Sequence[CheckResult]) -> list[CheckResult]:
    return [each for each in results if each.verdict is CheckVerdict.PASS]


def _worst_first(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Those that did not pass."""
    return [each for verdict in _WORST_FIRST for each in results if each.verdict is verdict]


def _causes(results: Sequence[CheckResult]) -> list[CauseGroup]:
    groups: dict[tuple[CheckVerdict, str], list[str]] = {}
    for each in _worst_first(results):
        groups.setdefault((each.verdict, each.cause or "unknown"), []).append(each.id)
    return [CauseGroup(cause=cause, verdict=verdict, checks=ids) for (verdict, cause), ids in groups.items()]


def _findings(results: Sequence[CheckResult], severity: Severity) -> list[Finding]:
    failed = (each for each in results if each.verdict in FAILURES and each.severity is severity)
    return [Finding(check=each.id, reason=each.reason or "") for each in failed]


def _recommendations(results: Sequence[CheckResult]) -> list[str]:
    """One sentence for each thing to do, and the checks that ask for it."""
    asking: dict[str, list[str]] = {}
    for each in _worst_first(results):
        if each.next is not None:
            asking.setdefault(each.next, []).append(each.id)
    return [f"{action} ({', '.join(ids)})" for action, ids in asking.items()]
