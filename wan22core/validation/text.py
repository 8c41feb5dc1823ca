"""A validation on a terminal."""

from __future__ import annotations

from wan22core.records import CategoryReport, ValidationReport
from wan22core.records.validation import FAILURES
from wan22core.report.text import table


def to_text(report: ValidationReport) -> str:
    """The checks by category, what was expected and not found, what to do."""
    lines = [f"Validation {report.id} of {report.machine}: {report.verdict.value}, {passed(report)}."]
    for category in report.categories:
        lines += ["", *_category(category)]
    if report.recommendations:
        lines += ["", "What to do:", *(f"  {line}" for line in report.recommendations)]
    return "\n".join(lines)


def passed(report: ValidationReport) -> str:
    """How much passed, and how much of it says something of the machine."""
    parts = f"{report.passed_here} on the machine, {report.passed_on_snapshots} on packaged snapshots"
    return f"{_rate(report.success_rate)} of the checks passed ({parts})"


def _category(category: CategoryReport) -> list[str]:
    rows = [(check.id, check.verdict.value, f"{check.wall_s:.1f} s", check.behaviour) for check in category.checks]
    lines = [f"{category.name}: {_rate(category.success_rate)} passed"]
    lines += table(("check", "verdict", "time", "behaviour"), rows)
    for check in category.checks:
        if check.reason is not None:
            log = f" Log: {check.log}" if check.log is not None else ""
            lines.append(f"  {check.id}: {check.reason.removesuffix('.')}.{log}")
    replayed = [check.id for check in category.checks if check.on_snapshot]
    if replayed:
        lines.append(f"  From snapshots, not of this machine: {', '.join(replayed)}")
    groups = [group for group in category.causes if len(group.checks) > 1 and group.verdict in FAILURES]
    lines += [f"  One cause, {group.cause}: {', '.join(group.checks)}" for group in groups]
    if category.slow:
        lines.append(f"  Slower than {category.slow_s:g} s: {', '.join(category.slow)}")
    return lines


def _rate(rate: float | None) -> str:
    return "nothing" if rate is None else f"{rate:.0%}"
