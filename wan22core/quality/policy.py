"""From verdicts to the state of a run, its sentence and the exit code of a gate."""

from __future__ import annotations

from wan22core.records import (
    GATE_EXIT_CODES,
    Judgement,
    Labels,
    RegressionVerdict,
    RunError,
    RunState,
    TargetVerdict,
    VerdictValue,
)
from wan22core.targets import Severity


def run_state(judgement: Judgement, error: RunError | None) -> RunState:
    """Integrity before a broken run before a missed target before one not measured; warnings change nothing."""
    required = _required(judgement)
    if judgement.integrity.verdict == "fail":
        return RunState.INTEGRITY_FAILED
    if error is not None:
        return RunState.BROKEN
    if any(target.verdict is VerdictValue.FAIL for target in required):
        return RunState.TARGET_MISSED
    if not required or any(target.verdict is VerdictValue.NOT_MEASURED for target in required):
        return RunState.NOT_MEASURED
    return RunState.PASS


def summary(state: RunState, judgement: Judgement, labels: Labels, error: RunError | None) -> str:
    """The verdict in one sentence."""
    what = f"{labels.architecture} {labels.workload} with {labels.recipe} on {labels.device_name or labels.device}"
    required = _required(judgement)
    if state is RunState.INTEGRITY_FAILED:
        first = judgement.integrity.failed[0].expectation
        return f"The records of {what} can't be believed: it does not hold that {first}."
    if state is RunState.BROKEN:
        assert error is not None
        return f"The run of {what} broke: {error.message}"
    if state is RunState.TARGET_MISSED:
        missed = [each for each in required if each.verdict is VerdictValue.FAIL]
        return f"{what} misses {len(missed)} of {len(required)} targets: {'; '.join(map(_in_words, missed))}."
    if state is RunState.NOT_MEASURED:
        open_ = [each for each in required if each.verdict is VerdictValue.NOT_MEASURED]
        reason = open_[0].reason if open_ else "none is set"
        return f"{what} ran whole; {len(open_)} of {len(required)} targets are not measured: {reason}."
    return f"{what} meets all {len(required)} targets."


def _required(judgement: Judgement) -> list[TargetVerdict | RegressionVerdict]:
    judged: list[TargetVerdict | RegressionVerdict] = [*judgement.targets, *judgement.regressions]
    return [each for each in judged if each.severity is Severity.CRITICAL]


def _in_words(missed: TargetVerdict | RegressionVerdict) -> str:
    if isinstance(missed, RegressionVerdict):
        return f"{missed.metric} against the baseline: {missed.reason}"
    observed = "none" if missed.observed is None else f"{missed.observed:.4g}"
    return f"{missed.name} is {observed} {missed.unit}, the limit {missed.comparison} {missed.limit:g} {missed.unit}"


def gate_exit_code(state: RunState) -> int:
    """0 pass, 1 missed, 3 not measured, 4 broke, 5 integrity failed."""
    return GATE_EXIT_CODES[state]
