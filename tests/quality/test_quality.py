"""Each expectation has a cell that fails exactly it; each target its pass, its limit, its miss and its silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tests.builders import (
    INTERVAL_S,
    make_labels,
    make_repeats,
    make_samples,
    make_spec,
    make_stages,
)
from wan22core.quality.policy import gate_exit_code, run_state, summary
from wan22core.quality.tables import Tables, build_tables, read_samples, write_parquet
from wan22core.quality.verdict import Judged, judge
from wan22core.records import Judgement, RunError, RunState, VerdictValue

BROKEN = RunError(code="TIMEOUT", message="The stage decode was killed.", next="Look.", stage=None, log=None)


def tables_of(*, cuda: bool = False) -> Tables:
    return build_tables("r1", make_labels(cuda=cuda), make_repeats(cuda=cuda), make_stages(cuda=cuda), make_samples())


def judged(tables: Tables, *, cuda: bool = False, error: RunError | None = None, **labels: Any) -> Judged:
    return judge(tables, make_spec(cuda=cuda), make_labels(cuda=cuda, **labels), interval_s=INTERVAL_S, error=error)


def with_cell(tables: Tables, table: str, row: int, column: str, value: Any) -> Tables:
    frame: pd.DataFrame = getattr(tables, table).copy()
    frame.loc[row, column] = value
    return replace(tables, **{table: frame})


@pytest.mark.parametrize("cuda", [False, True])
def test_a_whole_run_is_believed(cuda: bool) -> None:
    """Every expectation was evaluated and none failed; the document is JSON without NaN."""
    result = judged(tables_of(cuda=cuda), cuda=cuda)
    assert (result.judgement.integrity.verdict, result.judgement.integrity.failed) == ("pass", [])
    assert result.judgement.integrity.evaluated > 30
    json.dumps(result.document, allow_nan=False)


@pytest.mark.parametrize(
    ("cuda", "table", "row", "column", "value", "expectation"),
    [
        (False, "runs", 1, "host", None, "the label host is present"),
        (False, "runs", 0, "kind", "practice", "a row is a warm-up or a measured repeat"),
        (False, "runs", 1, "load_s", None, "the load time is present"),
        (False, "runs", 1, "load_s", 0.0, "the load time is above zero"),
        (False, "runs", 2, "generation_s", None, "the generation time is present"),
        (False, "runs", 2, "generation_s", -1.0, "the generation time is above zero"),
        (False, "runs", 1, "frames_produced", 8, "the frames produced are the frames asked for"),
        (False, "runs", 1, "output_finite", False, "the output is finite"),
        (False, "runs", 1, "output_finite", None, "the check for NaN and infinity is present"),
        (False, "runs", 1, "output_constant", True, "the output is not constant"),
        (False, "runs", 1, "peak_rss_mib", 0.0, "peak_rss_mib is above zero"),
        (False, "stages", 3, "wall_s", 0.0, "the time of a stage that ended well is above zero"),
        (False, "stages", 3, "ended_s", 6.5, "no stage took longer in the worker than its parent waited"),
        (False, "stages", 3, "started_s", 3.0, "the stages are in the order of time"),
        (False, "stages", 3, "achieved_rate_hz", 4.0, "a stage of a second or more has 5 samples a second"),
        (False, "stages", 3, "status", "failed", "the error code of a failed stage is present"),
        (False, "samples", 5, "t_s", 0.1, "the samples are in the order of time"),
        (True, "runs", 1, "peak_process_mib", None, "peak_process_mib is present"),
        (True, "runs", 1, "peak_device_mib", 0.0, "peak_device_mib is above zero"),
        (True, "stages", 3, "end_allocated_mib", 9600.0, "end_allocated_mib <= end_reserved_mib within 64 MiB"),
        (True, "stages", 3, "end_process_mib", 9400.0, "end_reserved_mib <= end_process_mib within 64 MiB"),
        (True, "stages", 3, "end_process_mib", 10_600.0, "end_process_mib <= end_device_mib within 64 MiB"),
        (True, "stages", 3, "end_reserved_mib", None, "end_reserved_mib is present"),
    ],
)
def test_one_wrong_cell_fails_exactly_its_expectation(
    cuda: bool, table: str, row: int, column: str, value: Any, expectation: str
) -> None:
    """Nothing else fails, and the run's records can't be believed."""
    result = judged(with_cell(tables_of(cuda=cuda), table, row, column, value), cuda=cuda)
    assert [failed.expectation for failed in result.judgement.integrity.failed] == [expectation]
    assert run_state(result.judgement, None) is RunState.INTEGRITY_FAILED


def test_readings_within_the_tolerance_are_in_order() -> None:
    """64 MiB apart is still the same moment."""
    assert (
        judged(
            with_cell(tables_of(cuda=True), "stages", 3, "end_allocated_mib", 9564.0), cuda=True
        ).judgement.integrity.failed
        == []
    )


@pytest.mark.parametrize(
    ("change", "expectation"),
    [
        (lambda t: replace(t, runs=t.runs.iloc[:0]), "there are exactly 3 repeats and warm-ups"),
        (lambda t: replace(t, runs=t.runs.iloc[:2]), "there are exactly 3 repeats and warm-ups"),
        (lambda t: replace(t, stages=t.stages.iloc[:0]), "there are at least 1 stages that ended well"),
        (lambda t: replace(t, samples=t.samples.iloc[:0]), "there are at least 2 samples"),
    ],
)
def test_an_empty_or_short_table_does_not_pass(change: Callable[[Tables], Tables], expectation: str) -> None:
    """Row-level expectations pass on nothing, so the rows are counted."""
    failed = judged(change(tables_of())).judgement.integrity.failed
    assert expectation in [each.expectation for each in failed]


def test_what_can_t_be_evaluated_is_told_apart() -> None:
    """A column of the wrong type is no missed limit."""
    tables = tables_of()
    broken = replace(tables, samples=tables.samples.assign(t_s=tables.samples["t_s"].astype(object)))
    broken.stages["achieved_rate_hz"] = broken.stages["achieved_rate_hz"].astype(str) + " Hz"
    failed = judged(broken).judgement.integrity.failed
    assert [each.column for each in failed if each.could_not_evaluate] == ["achieved_rate_hz"]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (119.9, VerdictValue.PASS),
        (120.0, VerdictValue.FAIL),
        (121.0, VerdictValue.FAIL),
        (None, VerdictValue.NOT_MEASURED),
    ],
)
def test_a_target_is_strict_and_judged_on_the_worst_repeat(value: float | None, verdict: VerdictValue) -> None:
    """120 s is not below 120 s; the other repeat's good time does not help."""
    result = judged(with_cell(tables_of(cuda=True), "runs", 1, "generation_s", value), cuda=True)
    target = next(each for each in result.judgement.targets if each.name == "video_2s_generation")
    assert (target.verdict, target.n) == (verdict, 2 if value is not None else 1)
    assert (target.reason is None) is (verdict is VerdictValue.PASS)


def test_a_lower_bound_is_judged_on_the_lowest() -> None:
    """fps >= 0.5 holds at 0.5 and not below."""
    for value, verdict in ((0.5, VerdictValue.PASS), (0.49, VerdictValue.FAIL)):
        result = judged(with_cell(tables_of(cuda=True), "runs", 2, "generation_fps", value), cuda=True)
        target = next(each for each in result.judgement.targets if each.name == "generation_fps")
        assert (target.verdict, target.observed) == (verdict, value)
        assert run_state(result.judgement, None) is RunState.PASS, "a warning changes nothing"


@pytest.mark.parametrize(
    ("labels", "name", "reason"),
    [
        ({"architecture": "tiny"}, "model_load_time", "asserted for ti2v-5b 2s-720p, this is tiny 2s-720p"),
        ({"recipe_class": "approximate"}, "vram_usage", "reference is approximate"),
        ({"device": "cpu"}, "vram_usage", "asserted on a CUDA device"),
        ({"emulated": True}, "memory_efficiency", "never judged against an emulated ceiling"),
    ],
)
def test_a_target_says_nothing_about_another_row(labels: dict[str, Any], name: str, reason: str) -> None:
    """Not measured, with what it is about."""
    result = judged(tables_of(cuda=True), cuda=True, **labels)
    target = next(each for each in result.judgement.targets if each.name == name)
    assert target.verdict is VerdictValue.NOT_MEASURED
    assert reason in (target.reason or "")


def test_the_states_have_their_order() -> None:
    """Integrity before a broken run before a missed target before one not measured before pass."""
    good = judged(tables_of(cuda=True), cuda=True).judgement
    missed = judged(with_cell(tables_of(cuda=True), "runs", 1, "load_s", 301.0), cuda=True).judgement
    silent = judged(tables_of()).judgement
    unbelievable = judged(with_cell(tables_of(cuda=True), "runs", 1, "load_s", 0.0), cuda=True).judgement
    cases: list[tuple[Judgement, RunError | None, RunState, int]] = [
        (good, None, RunState.PASS, 0),
        (missed, None, RunState.TARGET_MISSED, 1),
        (silent, None, RunState.NOT_MEASURED, 3),
        (missed, BROKEN, RunState.BROKEN, 4),
        (unbelievable, BROKEN, RunState.INTEGRITY_FAILED, 5),
    ]
    for judgement, error, state, code in cases:
        assert run_state(judgement, error) is state
        assert gate_exit_code(state) == code
        assert summary(state, judgement, make_labels(), error).endswith(".")


def test_a_broken_run_is_broken_and_not_unbelievable() -> None:
    """What is missing is the break itself; what is there must still hold."""
    tables = tables_of()
    cut = replace(tables, runs=tables.runs.assign(generation_s=float("nan"), frames_produced=float("nan")))
    result = judged(cut, error=BROKEN)
    assert result.judgement.integrity.failed == []
    assert run_state(result.judgement, BROKEN) is RunState.BROKEN


def test_samples_come_back_from_parquet(tmp_path: Any) -> None:
    """What was written is read back equal, missing values as None."""
    write_parquet(tables_of(), tmp_path)
    assert read_samples(tmp_path) == make_samples()
    assert read_samples(tmp_path / "none") == []
