"""Evaluates the suites and turns their results into verdicts of three values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
from great_expectations import ExpectationSuite
from great_expectations.data_context.types.base import ProgressBarsConfig

from wan22core.quality.suites import Check, integrity_checks, target_check
from wan22core.quality.tables import Tables
from wan22core.records import (
    Integrity,
    IntegrityFailure,
    Judgement,
    Labels,
    RunError,
    TargetVerdict,
    VerdictValue,
)
from wan22core.specs import BenchmarkSpec
from wan22core.statistics import summarize
from wan22core.targets import Target


@dataclass(frozen=True)
class Judged:
    """The judgement, and all that Great Expectations said as plain JSON."""

    judgement: Judgement
    document: dict[str, Any]


def judge(tables: Tables, spec: BenchmarkSpec, labels: Labels, *, interval_s: float, error: RunError | None) -> Judged:
    """Both suites, always; ``interval_s`` is the requested distance of two samples."""
    validate = _validator()
    checks = integrity_checks(tables, spec, labels, interval_s, broken=error is not None)
    integrity_results = [(check, validate(check, f"integrity-{number}")) for number, check in enumerate(checks)]
    failures = [failure for check, results in integrity_results for failure in _failures(check, results)]
    evaluated = sum(len(check.expectations) for check in checks)
    asked = [*spec.targets, *spec.smoke_limits]
    reasons = {target.name: _not_judged(target, tables, labels, error) for target in asked}
    check = target_check(tables, [target for target in asked if reasons[target.name] is None])
    results = validate(check, "targets") if check.expectations else []
    failures += [failure for failure in _failures(check, results) if failure.could_not_evaluate]
    success = {result["expectation_config"]["meta"]["target"]: bool(result["success"]) for result in results}
    reasons |= {
        result["expectation_config"]["meta"]["target"]: "the target could not be evaluated"
        for result in results
        if _raised(result)
    }
    verdicts = {target.name: _verdict(target, tables, reasons[target.name], success) for target in asked}
    failures += [_contradiction(target) for target in asked if _contradicts(target, verdicts[target.name])]
    judgement = Judgement(
        integrity=Integrity(
            verdict="fail" if failures else "pass", failed=failures, evaluated=evaluated + len(check.expectations)
        ),
        targets=[verdicts[target.name] for target in spec.targets],
        smoke_limits=[verdicts[target.name] for target in spec.smoke_limits],
    )
    document = {
        "integrity": [{"table": each.table, "results": found} for each, found in integrity_results],
        "targets": results,
        "not_judged": {name: reason for name, reason in reasons.items() if reason is not None},
    }
    return Judged(judgement, _plain(document))


def _validator() -> Any:
    """A function that runs one check in an ephemeral context and returns plain results."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("records")

    def validate(check: Check, name: str) -> list[dict[str, Any]]:
        definition = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        batch = definition.get_batch({"dataframe": check.rows})
        suite = ExpectationSuite(name=name, expectations=check.expectations)
        return list(batch.validate(suite).to_json_dict()["results"])

    return validate


def _failures(check: Check, results: list[dict[str, Any]]) -> list[IntegrityFailure]:
    found = []
    for result in results:
        if result["success"]:
            continue
        config = result["expectation_config"]
        observed = result["result"].get("observed_value", result["result"].get("partial_unexpected_list"))
        found.append(
            IntegrityFailure(
                expectation=config["description"],
                table=check.table,
                column=config["kwargs"].get("column"),
                observed=None if observed is None else str(observed),
                could_not_evaluate=_raised(result),
            )
        )
    return found


def _raised(result: dict[str, Any]) -> bool:
    """A wrong type or a missing column is no missed limit: the expectation itself could not be evaluated."""
    info = result.get("exception_info") or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    return any(entry["raised_exception"] for entry in entries)


def _not_judged(target: Target, tables: Tables, labels: Labels, error: RunError | None) -> str | None:
    """Why a target says nothing about this run, None when it does."""
    about = (target.architecture, target.workload)
    if about != (labels.architecture, labels.workload):
        return f"asserted for {target.about}, this is {labels.architecture} {labels.workload}"
    if labels.recipe_class not in target.recipe_classes:
        return f"asserted for {' and '.join(target.recipe_classes)} recipes, {labels.recipe} is {labels.recipe_class}"
    if target.requires_cuda and not labels.device.startswith("cuda"):
        return f"asserted on a CUDA device, this ran on {labels.device}"
    if target.metric == "memory_efficiency" and labels.emulated:
        return "never judged against an emulated ceiling"
    missing = int(_values(target, tables).isna().sum())
    if missing or _values(target, tables).empty:
        why = error.message if error is not None else "the worker or the driver gave no figure"
        return f"{target.metric} was not measured: {why}"
    return None


def _values(target: Target, tables: Tables) -> Any:
    return tables.runs.loc[tables.runs["kind"] == "measured", target.metric]


def _verdict(target: Target, tables: Tables, reason: str | None, success: dict[str, bool]) -> TargetVerdict:
    values = [None if math.isnan(value) else float(value) for value in _values(target, tables)]
    summary = summarize(values)
    worst = summary.minimum if target.comparison == ">=" else summary.maximum
    if reason is not None:
        value = VerdictValue.NOT_MEASURED
    elif success.get(target.name, False):
        value = VerdictValue.PASS
    else:
        value = VerdictValue.FAIL
        reason = None if worst is None else f"missed by {abs(worst - target.limit):.4g} {target.unit}"
    return TargetVerdict(
        **target.model_dump(include={"name", "metric", "comparison", "limit", "unit", "severity"}),
        observed=worst,
        median=summary.median,
        n=summary.n,
        verdict=value,
        reason=reason,
    )


def _contradicts(target: Target, verdict: TargetVerdict) -> bool:
    """Great Expectations decides; our own comparison must agree, or one of the two is wrong."""
    if verdict.verdict is VerdictValue.NOT_MEASURED or verdict.observed is None:
        return False
    return target.holds(verdict.observed) is not (verdict.verdict is VerdictValue.PASS)


def _contradiction(target: Target) -> IntegrityFailure:
    return IntegrityFailure(
        expectation=f"the verdict on {target.name} follows from its observed value",
        table="runs",
        column=target.metric,
        observed=None,
        could_not_evaluate=True,
    )


def _plain(value: Any) -> Any:
    """JSON without NaN and infinity, which no reader accepts."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
