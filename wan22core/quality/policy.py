"""From verdicts to the state of a run, its sentence and the exit code of a gate."""

from __future__ import annotations

from wan22core.records import (
    GATE_EXIT_CODES,
    Judgement,
    Labels,
    RunError,
    RunState,
    TargetVerdict,
    VerdictValue,
)
from wan22core.targets import Severity


def run_state(judgement: Judgement, error: RunError | None) -> RunState:
    """Integrity before a broken run before a missed target before one not measured; warnings change nothing."""
    required = [target for target in judgement.targets if target.severity is Severity.CRITICAL]
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
    required = [target for target in judgement.targets if target.severity is Severity.CRITICAL]
    if state is RunState.INTEGRITY_FAILED:
        first = judgement.integrity.failed[0].expectation
        return f"The records of {what} can't be believed: it does not hold that {first}."
    if state is RunState.BROKEN:
        assert error is not None
        return f"The run of {what} broke: {error.message}"
    if state is RunState.TARGET_MISSED:
        missed = [target for target in required if target.verdict is VerdictValue.FAIL]
        return f"{what} misses {len(missed)} of {len(required)} targets: {'; '.join(map(_in_words, missed))}."
    if state is RunState.NOT_MEASURED:
        open_ = [target for target in required if target.verdict is VerdictValue.NOT_MEASURED]
        reason = open_[0].reason if open_ else "none is set"
        return f"{what} ran whole; {len(open_)} of {len(required)} targets are not measured: {reason}."
    return f"{what} meets all {len(required)} targets."


def _in_words(target: TargetVerdict) -> str:
    observed = "none" if target.observed is None else f"{target.observed:.4g}"
    return f"{target.name} is {observed} {target.unit}, the limit {target.comparison} {target.limit:g} {target.unit}"


def gate_judgement(judgement: Judgement, labels: Labels) -> Judgement:
    """What a gate may count: nothing of a run that fell back or was resumed, nothing emulated on another card."""
    if labels.emulated:
        reason = "measured under an emulated ceiling on another card"
    elif not labels.comparable:
        reason = "the run was resumed, fell back or needed a second attempt"
    else:
        return judgement
    targets = [
        target.model_copy(update={"verdict": VerdictValue.NOT_MEASURED, "reason": reason})
        for target in judgement.targets
    ]
    return judgement.model_copy(update={"targets": targets})


def gate_exit_code(state: RunState) -> int:
    """0 pass, 1 missed, 3 not measured, 4 broke, 5 integrity failed."""
    return GATE_EXIT_CODES[state]
