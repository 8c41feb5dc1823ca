"""The validation of a machine as a Prefect flow: one task a category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from tasks.options import belted
from tasks.validation import record_validation, show_validation, validate_category, write_validation
from wan22core.records import CheckResult, ValidationReport, VerdictValue
from wan22core.session.folder import new_run_id
from wan22core.settings import Settings
from wan22core.validation.analysis import analyse, was_interrupted
from wan22core.validation.context import Context
from wan22core.validation.registry import Check, by_category, checks
from wan22core.validation.runner import cut_off
from wan22core.validation.text import passed

_STATES = {
    VerdictValue.PASS: (Completed, "Pass"),
    VerdictValue.NOT_MEASURED: (Completed, "NotMeasured"),
    VerdictValue.FAIL: (Failed, "ValidationFailed"),
}


@flow(name="validation")
def validation(categories: list[str] | None = None, folder: Path | None = None) -> State[Any]:
    """Checks of these categories (of all without any) on this machine, or on that of a folder of dumps.

    The state is named by the verdict; a check that fails does not keep the others from running, an interrupt does.
    """
    settings = Settings()
    chosen = by_category(checks(categories or []))
    context = Context.new(new_run_id(), settings, folder)
    context.prepare()
    results: list[CheckResult] = []
    for category, found in chosen.items():
        results += _run(category, found, context) if not was_interrupted(results) else cut_off(found, context)
    report = analyse(context, results)
    show_validation(report)
    for keep in (write_validation, record_validation):
        if not keep(report, settings, return_state=True).is_completed():
            get_run_logger().warning("%s failed; the report is in the artifact validation-report.", keep.name)
    return _state_of(report)


def _run(category: str, found: list[Check], context: Context) -> list[CheckResult]:
    """One task, ended when a child of each check could have had its whole deadline."""
    return belted(validate_category, sum(check.deadline_s for check in found))(category, found, context)


def _state_of(report: ValidationReport) -> State[Any]:
    """Completed or Failed, named by the verdict; Cancelled after an interrupt."""
    if report.interrupted:
        return Cancelled(message=f"interrupted; {passed(report)}")
    kind, name = _STATES[report.verdict]
    return kind(name=name, message=passed(report))
