"""What a gate makes of a run: policy, waivers, and the comparison with a baseline."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_labels, make_repeats, make_run_record
from wan22core.errors import UserInputError
from wan22core.quality.gate import GatePolicy, Waiver, for_gate, load_policy
from wan22core.records import RepeatKind, RunRecord, RunState, VerdictValue, series_key
from wan22core.statistics import ratio_of_medians

TODAY = date(2026, 11, 24)
FIVE = (10.0, 10.1, 9.9, 10.05, 9.95)


def run_of(generation_s: tuple[float, ...] = FIVE, *, load_s: float = 1.9, **labels: Any) -> RunRecord:
    """A believable run on a GPU whose repeats took these seconds."""
    row = make_repeats(cuda=True)[-1]
    repeats = [
        row.model_copy(
            update={"kind": RepeatKind.MEASURED, "repeat": number, "generation_s": seconds, "load_s": load_s}
        )
        for number, seconds in enumerate(generation_s)
    ]
    found = make_labels(cuda=True, **labels)
    targets = [
        target.model_copy(
            update={"observed": load_s, "verdict": VerdictValue.PASS if load_s < 300 else VerdictValue.FAIL}
        )
        if target.metric == "load_s"
        else target
        for target in make_run_record(cuda=True).targets
    ]
    return make_run_record(cuda=True, repeats=repeats, labels=found, series_key=series_key(found), targets=targets)


def slower(share: float) -> tuple[float, ...]:
    return tuple(seconds * (1 + share) for seconds in FIVE)


BASELINE = run_of()
LOAD_WAIVER = {"name": "model_load_time", "until": TODAY, "reason": "a new disk is on its way"}
EXPIRED = {**LOAD_WAIVER, "until": TODAY - timedelta(days=1)}
SLOWNESS_WAIVER = {"name": "generation_s", "until": TODAY, "reason": "known"}


@pytest.mark.parametrize(
    ("run", "policy", "baseline", "state"),
    [
        (run_of(), {}, None, RunState.PASS),
        (run_of(load_s=301), {}, None, RunState.TARGET_MISSED),
        (run_of(load_s=301), {"required": ["vram_usage"]}, None, RunState.PASS),
        (run_of(), {"required": []}, None, RunState.NOT_MEASURED),
        (run_of(load_s=301), {"waivers": [LOAD_WAIVER]}, None, RunState.PASS),
        (run_of(load_s=301), {"waivers": [EXPIRED]}, None, RunState.TARGET_MISSED),
        (run_of(emulated=True), {}, None, RunState.NOT_MEASURED),
        (run_of(emulated=True), {"accept_emulated": True}, None, RunState.PASS),
        (run_of(attempts=2), {}, None, RunState.NOT_MEASURED),
        (run_of(resumed=True), {}, None, RunState.NOT_MEASURED),
        (run_of(fallback=True), {"accept_emulated": True}, None, RunState.NOT_MEASURED),
        (run_of(), {}, BASELINE, RunState.PASS),
        (run_of(slower(0.04)), {}, BASELINE, RunState.PASS),
        (run_of(slower(0.08)), {}, BASELINE, RunState.TARGET_MISSED),
        (run_of(slower(-0.3)), {}, BASELINE, RunState.PASS),
        (run_of(slower(0.08)), {"allowed_regression": {"generation_s": 0.1}}, BASELINE, RunState.PASS),
        (run_of(slower(0.08)[:3]), {}, BASELINE, RunState.NOT_MEASURED),
        (run_of(slower(0.08)[:3]), {"min_repeats": 3}, BASELINE, RunState.TARGET_MISSED),
        (run_of((9.0, 13.0, 9.5, 14.0, 10.6)), {}, BASELINE, RunState.NOT_MEASURED),
        (run_of((9.0, 13.0, 9.5, 14.0, 10.4)), {}, BASELINE, RunState.PASS),
        (run_of(thermally_throttled=True), {}, None, RunState.NOT_MEASURED),
        (run_of(workload="5s-720p"), {}, BASELINE, RunState.NOT_MEASURED),
        (run_of(slower(0.08)), {"waivers": [SLOWNESS_WAIVER]}, BASELINE, RunState.PASS),
    ],
)  # fmt: skip
def test_situations(run: RunRecord, policy: dict[str, Any], baseline: RunRecord | None, state: RunState) -> None:
    """Each has one verdict, and a sentence that gives it."""
    judged = for_gate(run, GatePolicy.model_validate(policy), baseline, TODAY)
    assert judged.verdict is state
    assert judged.summary.endswith(".")
    assert [each.verdict for each in run.targets] != [], "the run itself is not changed"


def test_reasons_are_said() -> None:
    """A regression with its interval, a waiver with its day, an expired one, another series by what differs."""
    (found,) = for_gate(
        run_of(slower(0.08)), GatePolicy(allowed_regression={"generation_s": 0.05}), BASELINE, TODAY
    ).regressions
    assert (found.baseline, found.observed, found.n, found.n_baseline) == (10.0, pytest.approx(10.8), 5, 5)
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert 1.05 < found.ratio_low < 1.08 < found.ratio_high < 1.11
    assert found.reason is not None
    assert found.reason.startswith("+8.0 % [")
    waiver = Waiver(name="model_load_time", until=TODAY, reason="a new disk")
    target = for_gate(run_of(load_s=301), GatePolicy(waivers=(waiver,)), None, TODAY).targets[0]
    assert target.reason is not None
    assert target.reason.endswith("waived until 2026-11-24: a new disk")
    target = for_gate(run_of(load_s=301), GatePolicy(waivers=(waiver,)), None, TODAY + timedelta(days=1)).targets[0]
    assert target.reason is not None
    assert target.reason.endswith("the waiver expired on 2026-11-24: a new disk")
    other = for_gate(run_of(workload="5s-720p"), GatePolicy(), BASELINE, TODAY).regressions[0]
    assert other.reason == "the baseline is of another series (workload 2s-720p there, 5s-720p here)"


def test_what_the_baseline_never_had_can_t_get_worse() -> None:
    """Device memory of a run on the CPU: shown as not measured, and no reason to stop."""
    without = [row.model_copy(update={"peak_process_mib": None}) for row in BASELINE.repeats]
    baseline, run = (each.model_copy(update={"repeats": without}) for each in (BASELINE, run_of()))
    judged = for_gate(run, GatePolicy(allowed_regression={"peak_process_mib": 0.02}), baseline, TODAY)
    assert judged.regressions[0].verdict is VerdictValue.NOT_MEASURED
    assert judged.verdict is RunState.PASS
    lost = for_gate(run, GatePolicy(allowed_regression={"peak_process_mib": 0.02}), BASELINE, TODAY)
    assert lost.verdict is RunState.NOT_MEASURED, "what it had and this run lacks is looked for in vain"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid"),
        (json.dumps({"requred": []}), "requred"),
        (json.dumps({"allowed_regression": {"speed": 0.1}}), "allowed_regression.speed"),
        (json.dumps({"allowed_regression": {"load_s": 0.1}}), "allowed_regression.load_s"),
        (json.dumps({"allowed_regression": {"generation_s": 5}}), "less than 1"),
        (json.dumps({"allowed_regression": {"generation_s": -0.1}}), "greater than or equal to 0"),
        ('{"allowed_regression": {"generation_s": NaN}}', "finite number"),
        (json.dumps({"waivers": [{"name": "vram_usage", "until": "soon", "reason": "x"}]}), "waivers.0.until"),
        (json.dumps({"waivers": [{"name": "vram_usage", "until": "2026-12-01", "reason": ""}]}), "waivers.0.reason"),
    ],
)
def test_a_policy_that_is_wrong_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """In a sentence that names the field."""
    path = tmp_path / "policy.json"
    path.write_text(content)
    with pytest.raises(UserInputError, match=words):
        load_policy(path)
    with pytest.raises(UserInputError, match="can't be read"):
        load_policy(tmp_path / "none.json")


@pytest.mark.parametrize("policy", [{"required": ["speed"]}, {"waivers": [{**LOAD_WAIVER, "name": "speed"}]}])
def test_a_name_that_the_run_lacks_is_refused(policy: dict[str, Any]) -> None:
    """A policy with a slip of the pen must not let everything pass."""
    with pytest.raises(UserInputError, match="names speed"):
        for_gate(run_of(), GatePolicy.model_validate(policy), None, TODAY)


def test_the_ratio_of_medians_has_an_interval() -> None:
    """Always the same one, and a degenerate one for values that don't vary."""
    assert ratio_of_medians(slower(0.1), FIVE) == ratio_of_medians(slower(0.1), FIVE)
    same = ratio_of_medians([2.0] * 5, [1.0] * 5)
    assert (same.low, same.mid, same.high) == (2.0, 2.0, 2.0)
    for bad in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="positive"):
            ratio_of_medians(bad, FIVE)
