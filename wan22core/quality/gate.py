"""What a deployment's gate makes of a run: which limits are required, what counts, what is waived, what got worse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wan22core.errors import UserInputError
from wan22core.quality.policy import run_state, summary
from wan22core.records import (
    Judgement,
    Labels,
    RegressionVerdict,
    RepeatKind,
    RunRecord,
    TargetVerdict,
    VerdictValue,
)
from wan22core.statistics import ratio_of_medians, summarize
from wan22core.targets import Severity

Compared = Literal["generation_s", "step_median_s", "peak_process_mib", "peak_rss_mib"]
"""A metric of a repeat that is worse when it is higher."""
_UNITS: dict[Compared, str] = {
    "generation_s": "s",
    "step_median_s": "s",
    "peak_process_mib": "MiB",
    "peak_rss_mib": "MiB",
}
V = TypeVar("V", TargetVerdict, RegressionVerdict)
_SERIES = ("host", "device_name", "device_uuid", "weights_id", "architecture", "workload", "recipe", "vram_limit_mib")


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Waiver(_Closed):
    """A limit that may be missed for a while."""

    name: str
    """Of a target, or of a metric that is compared."""
    until: date
    """The last day on which it counts."""
    reason: str = Field(min_length=1)


class GatePolicy(_Closed):
    """How a gate judges; every field has the default of a gate without a policy."""

    schema_version: Literal[1] = 1
    required: tuple[str, ...] | None = None
    """Targets that must pass; None takes the critical ones."""
    accept_emulated: bool = False
    """Whether what was measured under an emulated ceiling on another card counts."""
    allowed_regression: dict[Compared, Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]] = Field(
        default={"generation_s": 0.05, "step_median_s": 0.05, "peak_process_mib": 0.02}
    )
    """Share (0.05 is 5 %) by which a metric may be worse than the baseline's; others are not compared."""
    min_repeats: int = Field(default=5, ge=2)
    """Repeats that a comparison needs on each side."""
    waivers: tuple[Waiver, ...] = ()


def load_policy(path: Path) -> GatePolicy:
    """The policy of a JSON file; ``UserInputError`` names what is wrong in it."""
    try:
        return GatePolicy.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserInputError(
            f"{path} can't be read: {error.strerror}.", next_action="Give an existing file."
        ) from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors())
        raise UserInputError(
            f"The policy {path} is not valid: {found}.", next_action="See docs/gate.md for its fields."
        ) from error


def for_gate(record: RunRecord, policy: GatePolicy, baseline: RunRecord | None, today: date) -> RunRecord:
    """The run as a gate judges it. Raises ``UserInputError`` for a policy that names a limit which the run lacks."""
    require_known_names(policy, [target.name for target in record.targets])
    regressions = [] if baseline is None else compared(record, baseline, policy)
    judgement = Judgement(
        integrity=record.integrity,
        targets=[_counted(target, policy, record.labels) for target in record.targets],
        smoke_limits=record.smoke_limits,
        regressions=regressions,
    )
    judgement = judgement.model_copy(
        update={
            "targets": [_waived(each, each.name, policy, today) for each in judgement.targets],
            "regressions": [_waived(each, each.metric, policy, today) for each in judgement.regressions],
        }
    )
    state = run_state(judgement, record.error)
    return record.model_copy(
        update={
            "targets": judgement.targets,
            "regressions": judgement.regressions,
            "verdict": state,
            "summary": summary(state, judgement, record.labels, record.error),
        }
    )


def require_known_names(policy: GatePolicy, targets: Sequence[str]) -> None:
    """Raises ``UserInputError`` for a policy that names none of these targets, and no metric that is compared."""
    asked = set(policy.required or ()) - set(targets)
    asked |= {waiver.name for waiver in policy.waivers} - set(targets) - set(_UNITS)
    if asked:
        raise UserInputError(
            f"The policy names {', '.join(sorted(asked))}, and there is no such target.",
            next_action=f"The targets are: {', '.join(sorted(targets))}.",
        )


def _counted(target: TargetVerdict, policy: GatePolicy, labels: Labels) -> TargetVerdict:
    """Whether it is required, and nothing of a run that may not count."""
    if policy.required is not None:
        severity = Severity.CRITICAL if target.name in policy.required else Severity.WARNING
        target = target.model_copy(update={"severity": severity})
    if (reason := _does_not_count(labels, policy)) is None:
        return target
    return target.model_copy(update={"verdict": VerdictValue.NOT_MEASURED, "reason": reason})


def _does_not_count(labels: Labels, policy: GatePolicy) -> str | None:
    if labels.emulated and not policy.accept_emulated:
        return "measured under an emulated ceiling on another card"
    if labels.thermally_throttled:
        return "the GPU was too hot, and lowered its clocks"
    return None if labels.comparable else _spoiled_by(labels)


def _spoiled_by(labels: Labels) -> str:
    """Why a run's rows are shown and not counted."""
    if labels.embeddings_cached:
        return "the run read its prompt's embeddings from a file, and encoded nothing"
    if labels.attempts > 1 and not (labels.resumed or labels.fallback):
        return f"the run needed {labels.attempts} attempts"
    return "the run was resumed" if labels.resumed else "the run fell back to another precision, placement or attention"


def _waived(verdict: V, name: str, policy: GatePolicy, today: date) -> V:
    """A waived limit is shown and does not count; a waiver that has expired is named and changes nothing."""
    waiver = next((each for each in policy.waivers if each.name == name), None)
    if waiver is None or verdict.verdict is VerdictValue.PASS:
        return verdict
    expired = waiver.until < today
    words = f"{'the waiver expired on' if expired else 'waived until'} {waiver.until}: {waiver.reason}"
    update: dict[str, object] = {"reason": f"{verdict.reason}; {words}" if verdict.reason else words}
    return verdict.model_copy(update=update if expired else update | {"severity": Severity.WARNING})


def compared(record: RunRecord, baseline: RunRecord, policy: GatePolicy) -> list[RegressionVerdict]:
    """Each metric that the policy allows a regression for, beside the baseline's: medians of measured repeats.

    A metric fails when it is worse by more than is allowed *and* its interval shows that it is worse at all. Where it
    looks worse and the interval does not show it, where the two can't be compared, or a side has too few repeats,
    nothing is said, and the gate does not pass.
    """
    obstacle = _obstacle(record, baseline, policy)
    return [_compared(metric, record, baseline, policy, obstacle) for metric in policy.allowed_regression]


def _obstacle(record: RunRecord, baseline: RunRecord, policy: GatePolicy) -> str | None:
    """Why two runs may not be compared at all."""
    if record.series_key != baseline.series_key:
        ours, theirs = record.labels.model_dump(), baseline.labels.model_dump()
        other = [f"{name} {theirs[name]} there, {ours[name]} here" for name in _SERIES if ours[name] != theirs[name]]
        return f"the baseline is of another series ({'; '.join(other) or 'operating system'})"
    return _does_not_count(record.labels, policy)


def _compared(
    metric: Compared, record: RunRecord, baseline: RunRecord, policy: GatePolicy, obstacle: str | None
) -> RegressionVerdict:
    allowed = policy.allowed_regression[metric]
    ours, theirs = _values(record, metric), _values(baseline, metric)
    verdict, reason, ratio = VerdictValue.NOT_MEASURED, obstacle, None
    if obstacle is None and min(len(ours), len(theirs)) < policy.min_repeats:
        reason = f"{len(theirs)} repeats there and {len(ours)} here, {policy.min_repeats} are needed on each side"
    elif obstacle is None:
        ratio = ratio_of_medians(ours, theirs)
        worse, shown = ratio.mid > 1 + allowed, ratio.low > 1
        verdict = VerdictValue.PASS if not worse else VerdictValue.FAIL if shown else VerdictValue.NOT_MEASURED
        low, mid, high = (100 * (each - 1) for each in (ratio.low, ratio.mid, ratio.high))
        reason = f"{mid:+.1f} % [{low:.1f}, {high:.1f}], {100 * allowed:g} % are allowed"
        reason += ": too noisy to tell, repeat more often" if worse and not shown else ""
    return RegressionVerdict(
        metric=metric,
        unit=_UNITS[metric],
        baseline=summarize(theirs).median,
        observed=summarize(ours).median,
        ratio=None if ratio is None else ratio.mid,
        ratio_low=None if ratio is None else ratio.low,
        ratio_high=None if ratio is None else ratio.high,
        allowed=allowed,
        n_baseline=len(theirs),
        n=len(ours),
        # what the baseline never had (device memory on a CPU) can't get worse
        severity=Severity.CRITICAL if theirs else Severity.WARNING,
        verdict=verdict,
        reason=reason,
    )


def _values(record: RunRecord, metric: Compared) -> list[float]:
    found = [getattr(row, metric) for row in record.repeats if row.kind is RepeatKind.MEASURED]
    return [value for value in found if value is not None]
