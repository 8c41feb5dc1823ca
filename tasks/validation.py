"""Validate one category; keep and show what all of them found."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.options import LOCAL_TASK, RETRIED, SESSION_TASK
from wan22core.history.validations import store_validation
from wan22core.records import CheckResult, ValidationReport
from wan22core.settings import Settings
from wan22core.validation.analysis import table_rows
from wan22core.validation.context import Context
from wan22core.validation.document import write_report
from wan22core.validation.registry import Check
from wan22core.validation.runner import run_checks
from wan22core.validation.text import to_text


@task(name="validate-category", task_run_name="validate-{category}", **SESSION_TASK)
def validate_category(category: str, checks: Sequence[Check], context: Context) -> list[CheckResult]:
    """The checks of one category; the deadlines of the checks hold for the children that they start."""
    del category  # it names the task's run
    return run_checks(checks, context)


@task(name="write-validation", **LOCAL_TASK)
def write_validation(report: ValidationReport, settings: Settings) -> None:
    """The report into the validation's folder."""
    write_report(report, settings)


@task(name="record-validation", timeout_seconds=120, **RETRIED)
def record_validation(report: ValidationReport, settings: Settings) -> None:
    """The report into the database."""
    store_validation(settings.history_url, report)


@task(name="show-validation", **LOCAL_TASK)
def show_validation(report: ValidationReport) -> None:
    """The checks as a table, the report as text."""
    create_table_artifact(key="validation", table=table_rows(report), description=report.verdict.value)
    create_markdown_artifact(key="validation-report", markdown=f"```text\n{to_text(report)}\n```")
