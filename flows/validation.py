"""The validation of a machine as a Prefect flow: one task a category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.validation import record_validation, show_validation, validate_category
from wan22core.records import CheckResult, ValidationReport, VerdictValue
from wan22core.session.folder import new_run_id
from wan22core.settings import Settings
from wan22core.validation.analysis import analyse
from wan22core.validation.context import Context
from wan22core.validation.document import write_report
from wan22core.validation.registry import by_category, checks

_STATES = {
    VerdictValue.PASS: (Completed, "Pass"),
    VerdictValue.NOT_MEASURED: (Completed, "NotMeasured"),
    VerdictValue.FAIL: (Failed, "ValidationFailed"),
}


@flow(name="validation")
def validation(categories: list[str] | None = None, folder: Path | None = None) -> State[Any]:
    """Checks of these categories (of all without any) on this machine, or on that of a folder of dumps.

    The state is named by the verdict; a check that fails does not keep the others from running.
    """
    settings = Settings()
    chosen = by_category(checks(categories or []))
    context = Context.new(new_run_id(), settings, folder)
    results: list[CheckResult] = []
    for category, found in chosen.items():
        results += validate_category(category, found, context)
    report = analyse(context, results)
    path = write_report(context, report)
    show_validation(report)
    if not record_validation(report, settings, return_state=True).is_completed():
        get_run_logger().warning("The history can't be written; the report is in %s.", path)
    return _state_of(report)


def _state_of(report: ValidationReport) -> State[Any]:
    """Completed or Failed, named by the verdict."""
    kind, name = _STATES[report.verdict]
    passed = "nothing" if report.success_rate is None else f"{report.success_rate:.0%}"
    return kind(name=name, message=f"{passed} of the checks passed")
