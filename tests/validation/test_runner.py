"""The runner: every end of a check is a verdict, and the report adds them up."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.validation import jobs
from tests.validation.jobs import check
from wan22core.errors import DeviceBusyError, UserInputError
from wan22core.history.validations import list_validations, remove_validations_older_than, store_validation
from wan22core.records import CheckResult, CheckVerdict, Reading, ValidationReport, VerdictValue
from wan22core.settings import Settings
from wan22core.targets import Severity
from wan22core.validation.analysis import SLOW_S, analyse
from wan22core.validation.case import Case
from wan22core.validation.context import Context
from wan22core.validation.expectations import at_least, below, between, equal, one_of
from wan22core.validation.registry import Check
from wan22core.validation.runner import run, run_checks
from wan22core.validation.text import to_text


@pytest.fixture
def context() -> Context:
    return Context.new("20261124T100000-abcdef", Settings())


def report_of(context: Context, *checks: Check) -> ValidationReport:
    return analyse(context, run_checks(checks, context))


def test_a_pass_keeps_what_was_looked_at(context: Context) -> None:
    """Expectations and facts, in order; no reason, no cause."""
    result = run(check(jobs.passes), context)
    assert (result.verdict, result.reason, result.cause, result.log) == (CheckVerdict.PASS, None, None, None)
    assert result.looked_at == ["two and two"]
    assert [(each.what, each.expected, each.observed, each.held) for each in result.observations] == [
        ("their sum", "4", "4", True),
        ("their product", None, "4", None),
    ]


def test_a_miss_says_what_was_expected_and_what_to_do(context: Context) -> None:
    result = run(check(jobs.misses), context)
    assert (result.verdict, result.cause, result.next) == (CheckVerdict.FAIL, "their sum", "Learn to add.")
    assert result.reason == "their sum: expected >= 5, observed 4"


def test_an_exception_is_an_error_with_its_traceback_in_the_log(context: Context) -> None:
    """What was observed before it is kept."""
    result = run(check(jobs.breaks), context)
    assert (result.verdict, result.cause) == (CheckVerdict.ERROR, "RuntimeError")
    assert result.reason == "RuntimeError: this check is broken"
    assert len(result.observations) == 1
    assert result.log == str(context.log_path)
    assert 'raise RuntimeError("this check is broken")' in context.log_path.read_text()


def test_a_skip_is_not_measured(context: Context) -> None:
    """With its reason; what was missed before it counts all the same."""
    result = run(check(jobs.skips), context)
    assert (result.verdict, result.reason, result.next) == (
        CheckVerdict.NOT_MEASURED, "there is no abacus", "Buy one.",
    )  # fmt: skip
    assert run(check(jobs.misses_then_skips), context).verdict is CheckVerdict.FAIL


def test_a_check_that_expects_nothing_proves_nothing(context: Context) -> None:
    result = run(check(jobs.expects_nothing), context)
    assert (result.verdict, result.cause) == (CheckVerdict.ERROR, "no expectation")


def test_a_busy_device_is_no_failure(context: Context) -> None:
    """Another run has it: nothing was found out."""

    def meets_a_busy_device(case: Case) -> None:
        raise DeviceBusyError("Another run holds the GPU.", next_action="Wait.")

    result = run(check(meets_a_busy_device), context)
    assert (result.verdict, result.next) == (CheckVerdict.NOT_MEASURED, "Wait.")


def test_a_child_that_hangs_in_c_is_killed_at_the_deadline(context: Context) -> None:
    """An error of its own code, with the worker's log."""
    result = run(check(jobs.hangs, deadline_s=5.0), context)
    assert (result.verdict, result.cause) == (CheckVerdict.ERROR, "TIMEOUT")
    assert "did not end within 5 s and was killed (hung" in (result.reason or "")
    assert 5 <= result.wall_s < 60


def test_an_interrupt_keeps_what_ran(context: Context) -> None:
    """The check that was cut off keeps what it had noted; it and those after it are not measured."""
    report = report_of(context, check(jobs.passes), check(jobs.is_interrupted), check(jobs.skips))
    results = report.categories[0].checks
    assert [each.verdict.value for each in results] == ["pass", "not_measured", "not_measured"]
    assert [each.reason for each in results[1:]] == ["the validation was interrupted"] * 2
    assert [each.what for each in results[1].observations] == ["their sum", "their product"]
    assert (report.interrupted, report.verdict, report.success_rate) == (True, VerdictValue.NOT_MEASURED, 1 / 3)


def test_progress_counts_the_checks(context: Context) -> None:
    seen: list[tuple[str, int | None, int | None]] = []
    run_checks(
        [check(jobs.passes), check(jobs.skips)],
        context,
        lambda progress: seen.append((progress.stage, progress.step, progress.steps)),
    )
    assert seen == [("sums.passes", 1, 2), ("sums.skips", 2, 2)]


def test_the_report_adds_up(context: Context) -> None:
    """Passed by all registered; failures by cause, critical apart from warnings, what to do once for each sentence."""
    warning = check(jobs.misses_then_skips, severity=Severity.WARNING)
    chosen = [jobs.passes, jobs.skips, jobs.breaks, jobs.misses]
    report = report_of(context, *(check(each) for each in chosen), warning, *jobs.CHECKS)
    sums, outside = report.categories
    assert (report.verdict, report.interrupted, report.success_rate) == (VerdictValue.FAIL, False, 2 / 7)
    assert (sums.success_rate, outside.success_rate) == (1 / 5, 1 / 2)
    assert [(group.cause, group.verdict.value, group.checks) for group in sums.causes] == [
        ("RuntimeError", "error", ["sums.breaks"]),
        ("their sum", "fail", ["sums.misses", "sums.misses_then_skips"]),
        ("there is no abacus", "not_measured", ["sums.skips"]),
    ]
    assert [each.check for each in report.critical] == ["sums.breaks", "sums.misses"]
    assert [each.check for each in report.warnings] == ["sums.misses_then_skips"]
    assert report.recommendations[1:] == [
        "Learn to add. (sums.misses, sums.misses_then_skips)",
        "Buy one. (sums.skips, outside.skips)",
    ]
    text = to_text(report)
    assert "29% of the checks passed (2 on the machine, 0 on packaged snapshots)" in text
    assert "sums: 20% passed" in text
    assert "One cause, their sum: sums.misses, sums.misses_then_skips" in text


def test_what_passed_on_snapshots_is_counted_apart(context: Context) -> None:
    """It says nothing of the machine; a check that looked at both counts as one on a snapshot."""

    def stands_in(case: Case) -> None:
        case.look_at("from a snapshot: a workstation", packaged=True)
        jobs.passes(case)

    report = report_of(context, check(jobs.passes), check(stands_in), check(jobs.skips))
    assert (report.passed_here, report.passed_on_snapshots) == (1, 1)
    text = to_text(report)
    assert "67% of the checks passed (1 on the machine, 1 on packaged snapshots)" in text
    assert "From snapshots, not of this machine: sums.stands_in" in text


def test_a_log_that_takes_nothing_loses_no_result(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is printed instead."""
    context.log_path.mkdir(parents=True)
    result = run(check(jobs.breaks), context)
    assert (result.verdict, result.log) == (CheckVerdict.ERROR, None)
    assert result.next == "Look at the traceback in the output of this process."
    assert 'raise RuntimeError("this check is broken")' in caplog.text


def test_slow_checks_are_named_the_slowest_first(context: Context) -> None:
    def took(seconds: float, name: str) -> CheckResult:
        return run(check(jobs.passes), context).model_copy(update={"wall_s": seconds, "id": name})

    results = [took(SLOW_S, "slow"), took(SLOW_S - 0.01, "fast"), took(2 * SLOW_S, "slower")]
    category = analyse(context, results).categories[0]
    assert (category.slow, category.slow_s) == (["slower", "slow"], SLOW_S)


def test_nothing_run_is_nothing_proved(context: Context) -> None:
    report = analyse(context, [])
    assert (report.verdict, report.success_rate, report.categories) == (VerdictValue.NOT_MEASURED, None, [])


@pytest.mark.parametrize(
    ("expectation", "good", "bad"),
    [
        (equal("bf16"), "bf16", "fp16"),
        (at_least(512), 512, 511),
        (below(16), 15.99, 16),
        (between(16, 32), 32, 33),
        (one_of(("a", "b")), "b", "c"),
    ],
)
def test_an_expectation_holds_or_not(expectation: object, good: object, bad: object) -> None:
    """And never on what is not known."""
    assert [expectation.holds(each) for each in (good, bad, None)] == [True, False, False]  # type: ignore[attr-defined]


def test_an_unknown_reading_is_not_measured(context: Context) -> None:
    """With its reason; of a snapshot that says everything it was not read, which is a miss."""
    unknown = Reading[int].missing("nvml", "the driver does not run")

    def memory(case: Case) -> None:
        case.look_at("this machine")
        case.expect("memory, MiB", at_least(1), unknown)

    def memory_of_a_snapshot(case: Case) -> None:
        case.look_at("a snapshot", packaged=True)
        case.expect("memory, MiB", at_least(1), unknown)

    result = run(check(memory), context)
    assert (result.verdict, result.reason) == (
        CheckVerdict.NOT_MEASURED, "memory, MiB is unknown: the driver does not run",
    )  # fmt: skip
    result = run(check(memory_of_a_snapshot), context)
    assert (result.verdict, result.observations[0].observed) == (
        CheckVerdict.FAIL, "unknown (the driver does not run)",
    )  # fmt: skip


def test_the_history_keeps_reports(context: Context, tmp_path: Path) -> None:
    """The newest first; the same one again changes nothing."""
    url = f"sqlite:///{tmp_path}/history.db"
    report = report_of(context, check(jobs.passes))
    later = report.model_copy(
        update={"id": "20261125T100000-abcdef", "created_at": report.created_at.replace(year=2030)}
    )
    for each in (report, later, report):
        store_validation(url, each)
    found = list_validations(url)
    assert [(each.id, each.verdict, each.success_rate) for each in found] == [
        (later.id, VerdictValue.PASS, 1.0), (report.id, VerdictValue.PASS, 1.0),
    ]  # fmt: skip
    assert found[1].created_at == report.created_at
    assert list_validations(url, limit=1) == found[:1]
    assert remove_validations_older_than(url, report.created_at + timedelta(days=1)) == [report.id]
    assert list_validations(url) == found[:1]


def test_a_folder_without_dumps_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="no dump"):
        Context.new("x", Settings(), tmp_path)


def test_a_report_is_json(context: Context) -> None:
    report = report_of(context, check(jobs.breaks), check(jobs.skips))
    assert ValidationReport.model_validate_json(json.dumps(report.model_dump(mode="json"))) == report
