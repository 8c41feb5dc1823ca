"""Which expectations hold for which rows: pure functions from a run's tables to checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from great_expectations.expectations.expectation import Expectation

from wan22core.quality import expectations as expect
from wan22core.quality.tables import Tables
from wan22core.records import Labels
from wan22core.specs import BenchmarkSpec
from wan22core.targets import Target

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE_MIB = 64.0
"""How far readings that are taken one after the other may stand in the wrong order."""

_CLOCK_TOLERANCE_S = 0.05
_LONG_STAGE_S = 1.0
_MINIMUM_RATE = 0.5  # of the requested samples, in a stage of a second or more
_PEAKS = ("peak_allocated_mib", "peak_reserved_mib", "peak_process_mib", "peak_device_mib")
_END_READINGS = ("end_allocated_mib", "end_reserved_mib", "end_process_mib", "end_device_mib")
_LABELS = (
    "run_id", "host", "operating_system", "device", "architecture", "weights_source", "weights_id", "workload",
    "recipe", "recipe_class", "precision_requested", "placement",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """Some rows of a table, and what is expected of them."""

    table: str
    rows: pd.DataFrame
    expectations: list[Expectation]


def integrity_checks(
    tables: Tables, spec: BenchmarkSpec, labels: Labels, interval_s: float, *, broken: bool
) -> list[Check]:
    """May these rows be believed? Of a run that broke, what is there must hold; what is missing is the break itself."""
    cuda = labels.device.startswith("cuda")
    checks = [_runs(tables, spec, broken=broken), *_measured(tables, spec, cuda=cuda, broken=broken)]
    checks += _failed_stages(tables)
    if broken and not (tables.stages["status"] == "ok").any():
        return checks  # it broke before anything was measured
    return [*checks, *_ended_stages(tables, cuda=cuda), *_sampling(tables, interval_s)]


def target_check(tables: Tables, targets: list[Target]) -> Check:
    """The limits on the measured rows."""
    return Check("runs", _of_kind(tables, "measured"), [expect.meets(target) for target in targets])


def _of_kind(tables: Tables, kind: str) -> pd.DataFrame:
    return tables.runs[tables.runs["kind"] == kind]


def _runs(tables: Tables, spec: BenchmarkSpec, *, broken: bool) -> Check:
    asked = spec.repeats + spec.warmups
    # a run that broke before its first repeat has none
    rows = [] if broken else [expect.rows_exactly(asked, "repeats and warm-ups")]
    labels = [expect.present(name, f"the label {name}") for name in _LABELS]
    kinds = expect.one_of("kind", ["warmup", "measured"], "a row is a warm-up or a measured repeat")
    return Check("runs", tables.runs, [*rows, kinds, *labels])


def _measured(tables: Tables, spec: BenchmarkSpec, *, cuda: bool, broken: bool) -> list[Check]:
    rows = _of_kind(tables, "measured")
    if broken:
        rows = rows[rows["generation_s"].notna()]
        if rows.empty:
            return []
    rows = rows.assign(frames_surplus=rows["frames_produced"] - rows["frames_expected"])
    count = expect.rows_at_least(1, "measured repeats")
    if not broken:
        count = expect.rows_exactly(spec.repeats, "measured repeats: no warm-up among them, none missing")
    found = [
        count,
        *_measurement("load_s", "the load time"),
        *_measurement("generation_s", "the generation time"),
        expect.present("frames_produced", "the number of produced frames"),
        expect.one_of("frames_surplus", [0.0], "the frames produced are the frames asked for"),
        expect.present("output_finite", "the check for NaN and infinity"),
        expect.one_of("output_finite", [True], "the output is finite"),
        expect.present("output_constant", "the check for a constant output"),
        expect.one_of("output_constant", [False], "the output is not constant"),
    ]
    for column in _PEAKS if cuda else ("peak_rss_mib",):
        found += _measurement(column, column)
    if spec.vram_limit_mib is not None:
        sentence = "the process stayed below the emulated ceiling"
        found.append(expect.not_above("peak_process_mib", float(spec.vram_limit_mib), sentence))
    return [Check("runs", rows, found)]


def _measurement(column: str, what: str) -> list[Expectation]:
    return [expect.present(column, what), expect.positive(column, what)]


def _failed_stages(tables: Tables) -> list[Check]:
    failed = tables.stages[tables.stages["status"] == "failed"]
    named = [expect.present("error_code", "the error code of a failed stage")]
    return [] if failed.empty else [Check("stages", failed, named)]


def _ended_stages(tables: Tables, *, cuda: bool) -> list[Check]:
    stages = tables.stages
    whole = stages[stages["component"].isna()]
    ended = whole[whole["status"] == "ok"]
    ended = ended.assign(
        clock_slack_s=ended["ended_s"] - ended["started_s"] - ended["wall_s"],
        after_previous_s=ended["started_s"].diff().fillna(0.0),
    )
    waited = "no stage took longer in the worker than its parent waited"
    found = [
        expect.rows_at_least(1, "stages that ended well"),
        *_measurement("wall_s", "the time of a stage that ended well"),
        expect.not_below("after_previous_s", -_CLOCK_TOLERANCE_S, "the stages are in the order of time"),
        expect.present("clock_slack_s", "the start and the end of a stage"),
        expect.not_below("clock_slack_s", -_CLOCK_TOLERANCE_S, waited),
    ]
    memory = _memory_order(ended[ended["stage"] != "start"]) if cuda else []
    return [Check("stages", ended, found), *memory]


def _memory_order(ended: pd.DataFrame) -> list[Check]:
    """allocated <= reserved <= process <= device on simultaneous readings; a missing one is judged with its peak."""
    slack = ended.copy()
    found: list[Expectation] = []
    for lower, upper in (
        ("end_allocated_mib", "end_reserved_mib"),
        ("end_reserved_mib", "end_process_mib"),
        ("end_process_mib", "end_device_mib"),
        ("end_reserved_mib", "end_device_mib"),
    ):
        column = f"{upper}_over_{lower}"
        slack[column] = slack[upper] - slack[lower]
        sentence = f"{lower} <= {upper} within {TOLERANCE_MIB:g} MiB"
        if slack[column].notna().any():
            found.append(expect.not_below(column, -TOLERANCE_MIB, sentence))
    required = [expect.present(column, column) for column in _END_READINGS if column != "end_process_mib"]
    return [Check("stages", slack, [*required, *found])]


def _sampling(tables: Tables, interval_s: float) -> list[Check]:
    stages = tables.stages
    long = stages[
        stages["component"].isna()
        & (stages["status"] == "ok")
        & (stages["stage"] != "start")
        & (stages["wall_s"] >= _LONG_STAGE_S)
    ]
    minimum = _MINIMUM_RATE / interval_s
    samples = tables.samples.assign(step_s=tables.samples["t_s"].diff().fillna(0.0))
    in_order = [
        expect.rows_at_least(2, "samples"),
        expect.present("t_s", "the time of a sample"),
        expect.not_below("step_s", 0.0, "the samples are in the order of time"),
    ]
    paced = [
        expect.present("achieved_rate_hz", "the sample rate of a stage of a second or more"),
        expect.not_below("achieved_rate_hz", minimum, f"a stage of a second or more has {minimum:g} samples a second"),
    ]
    checks = [Check("samples", samples, in_order)]
    return checks if long.empty else [Check("stages", long, paced), *checks]
