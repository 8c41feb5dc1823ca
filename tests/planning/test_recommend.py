"""Advice after a run: each rule with a run that fires it and one nearby that does not; nothing on what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.builders import make_labels
from tests.planning.runs import CASES, Run, reading, run
from wan22core.planning.configuration import Configuration
from wan22core.planning.effect import Outlook, outlook_of
from wan22core.planning.recommend import advise, recommend
from wan22core.planning.rule import Change, Condition, Rule
from wan22core.planning.rules import RULES
from wan22core.planning.run_metrics import METRICS, measured_metrics
from wan22core.records import (
    Reading,
    RepeatKind,
    Sample,
    Stage,
)
from wan22core.specs import Precision
from wan22core.telemetry.trace import read_trace

DOCS = Path(__file__).parents[2] / "docs" / "recommendations.md"
TRACE = Path(__file__).parents[1] / "traces" / "h100-80gb-hbm3_580.159.04_2026-11-23_2s-720p-stock-6-steps.jsonl"


def fired(found: Run) -> set[str]:
    return {each.rule for each in recommend(*found, rules=RULES)}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_fires_alone_and_not_nearby(case: str) -> None:
    """The one rule on the run that it is about, and none on its neighbour."""
    rule, fires, quiet = CASES[case]
    assert (fired(fires()), fired(quiet())) == ({rule}, set())


def test_every_rule_has_a_case_and_a_place_in_the_docs() -> None:
    """Each identifier is a heading, and the anchor of its advice."""
    assert {case[0] for case in CASES.values()} == {rule.id for rule in RULES}
    headings = {line.removeprefix("### ") for line in DOCS.read_text().splitlines() if line.startswith("### ")}
    assert headings == {rule.id for rule in RULES}
    (advice,) = recommend(*run(gpu=0.8), rules=RULES)
    assert advice.docs == "docs/recommendations.md#gpu_waits"


def test_all_figures_are_there_each_with_a_value_or_a_reason() -> None:
    """On a GPU, on a CPU, and without any sample."""
    for record, samples in (run(), run(card=None), (run()[0], [])):
        found = measured_metrics(record, samples)
        assert found.keys() == METRICS.keys()
        assert all(each.value is not None or each.reason for each in found.values())
    assert measured_metrics(run()[0], [])["gpu_utilization_denoise"].reason == (
        "gpu_utilization_percent was not sampled twice in a measured denoise after its first second"
    )


def test_only_the_measured_repeats_count() -> None:
    """The median of two repeats; a warm-up that kept one core busy is not in it."""
    record, samples = run(busy={Stage.DENOISE: 6.0})
    second = max(each.started_s or 0 for each in record.stages if each.stage is Stage.DENOISE)
    changed = [s.model_copy(update={"cpu_percent": 400.0}) if second <= s.t_s < second + 2 else s for s in samples]
    assert measured_metrics(record, samples)["cores_busy_denoise"].value == pytest.approx(6.0)
    assert measured_metrics(record, changed)["cores_busy_denoise"].value == pytest.approx(5.0)


def test_a_recorded_denoise_on_an_h100_keeps_the_gpu_busy() -> None:
    """Stock diffusers at 720p: 98 % of the denoise, so that the threshold of 90 % is not the usual state."""
    trace = read_trace(TRACE)
    record, _ = run(precision="bfloat16")
    (denoise, *_) = [each for each in record.stages if (each.stage, each.kind) == (Stage.DENOISE, RepeatKind.MEASURED)]
    recorded = denoise.model_copy(update={"started_s": 22.7, "ended_s": 29.3})
    found = measured_metrics(record.model_copy(update={"stages": [recorded]}), trace.samples)
    assert found["gpu_utilization_denoise"].value == pytest.approx(0.98, abs=0.01)


def without(data: str) -> Callable[[Run], Run]:
    """What takes one piece of data out of a run."""

    def each_sample(found: Run) -> Run:
        record, samples = found
        return record, [sample.model_copy(update={data: None}) for sample in samples]

    def of_rows(found: Run) -> Run:
        record, samples = found
        field, name = data.split(".")
        rows = [row.model_copy(update={name: None}) for row in getattr(record, field)]
        return record.model_copy(update={field: rows}), samples

    def of_machine(found: Run) -> Run:
        record, samples = found
        part, name = data.split(".")[1:]
        missing = {name: Reading.missing("test", "removed")}
        hardware = record.hardware
        changed = (
            {"cpu": hardware.cpu.model_copy(update=missing)}
            if part == "cpu"
            else {"gpus": [each.model_copy(update=missing) for each in hardware.gpus]}
        )
        return record.model_copy(update={"hardware": hardware.model_copy(update=changed)}), samples

    def of_labels(found: Run) -> Run:
        record, samples = found
        return record.model_copy(
            update={"labels": record.labels.model_copy(update={"precision_actual": None})}
        ), samples

    def of_record(found: Run) -> Run:
        record, samples = found
        return record.model_copy(update={data: {"census": [], "environment": {}}[data]}), samples

    if data in Sample.model_fields:
        return each_sample
    if data.startswith("machine."):
        return of_machine
    return of_labels if data == "precision" else of_rows if "." in data else of_record


REMOVABLE = (
    "cpu_percent", "gpu_utilization_percent", "stages.started_s", "stages.wall_s", "stages.allocator_retries",
    "repeats.generation_s", "repeats.memory_efficiency", "repeats.peak_device_mib", "settings.read_back", "census",
    "environment", "precision", "machine.cpu.physical_cores", "machine.cpu.usable_cpus", "machine.cpu.numa_cpus",
    "machine.cpu.affinity", "machine.gpu.numa_node", "machine.gpu.name", "machine.gpu.vram_total_mib",
    "machine.gpu.vram_used_mib",
)  # fmt: skip


@given(st.sampled_from(sorted(CASES)), st.sampled_from([1, 2]), st.sets(st.sampled_from(REMOVABLE), min_size=1))
@settings(max_examples=60, deadline=None)
def test_removing_data_never_adds_advice(case: str, which: int, gone: set[str]) -> None:
    """Whatever of a run's data is missing, nothing fires that did not fire with it."""
    found = CASES[case][which]()
    before = fired(found)
    for data in gone:
        found = without(data)(found)
    assert fired(found) <= before


@given(
    st.fixed_dictionaries(
        {name: st.none() | st.sampled_from([0.0, 0.5, 0.85, 1.0, 1.5, 2.0, 9.0]) for name in METRICS}
    ),
    st.sets(st.sampled_from(sorted(METRICS))),
)
@settings(max_examples=200, deadline=None)
def test_removing_a_figure_never_adds_advice(values: dict[str, float | None], gone: set[str]) -> None:
    """The same for any figures at all."""
    removed = Reading[float].missing("test", "removed")
    metrics = {name: removed if value is None else reading(value) for name, value in values.items()}
    fewer = metrics | dict.fromkeys(gone, removed)
    all_fire = {rule.id for rule in RULES if rule.because(metrics)}
    assert {rule.id for rule in RULES if rule.because(fewer)} <= all_fire


def test_without_any_figure_nothing_fires() -> None:
    """Not even on a run that would fire most rules."""
    nothing = dict.fromkeys(METRICS, Reading[float].missing("test", "removed"))
    assert advise(run(gpu=0.5)[0], nothing, RULES) == []


def test_the_effect_is_the_planners_for_the_same_run_with_the_change() -> None:
    """Reference on an RTX 4080 in bf16: compiled blocks save what the plan of both configurations says."""
    found = run(gpu=0.8, precision="bfloat16")
    outlook = outlook_of(found[0])
    assert isinstance(outlook, Outlook)
    own = outlook.configuration
    before, after = (outlook.predicted(each) for each in (own, own.model_copy(update={"compiled": True})))
    assert before.generation is not None and after.generation is not None
    advice = {each.rule: each for each in recommend(*found, rules=RULES)}
    assert advice["gpu_waits"].expected_gain == pytest.approx(1 - after.generation.mid / before.generation.mid)
    assert "No recipe of this version does that yet." in advice["gpu_waits"].expected


def test_what_this_version_runs_is_not_called_a_thing_of_the_future() -> None:
    """bf16 with tiles on a large card: the reference recipe, which decodes whole frames, is there."""
    advice = {each.rule: each for each in recommend(*run(tiled=True, precision="bfloat16"), rules=RULES)}
    assert advice["vram_unused"].expected.startswith("Predicted with everything resident, decoding whole frames")
    assert "No recipe" not in advice["vram_unused"].expected


def test_a_faster_placement_leaves_room_on_the_card() -> None:
    """Whole frames would fit and fill 90 % of this card, so tiles are named."""
    (advice,) = recommend(*run(card=("NVIDIA H100 80GB HBM3", "9.0", 55_900), tiled=True), rules=RULES)
    assert "decoding tiles of 704 pixels" in advice.expected


def test_room_on_the_card_may_cost_time() -> None:
    """A full card: less memory, below 90 % of it, and the price in time is said."""
    (advice,) = recommend(
        *run(card=("NVIDIA H100 80GB HBM3", "9.0", 60_000), device_mib=58_000, held=0.95), rules=RULES
    )
    assert (advice.rule, "a peak of" in advice.expected) == ("vram_nearly_full", True)
    assert advice.expected_gain is not None and advice.expected_gain < 0


def test_a_change_that_saves_nothing_is_not_promised() -> None:
    """fp16 with fp16 accumulation is no faster on an H100, whose fp32 accumulation runs at full rate."""
    change = Change(what="fp16", fields={"transformer": Precision.FP16, "fp16_accumulation": True})
    rule = next(rule for rule in RULES if rule.id == "faster_precision").model_copy(update={"changes": (change,)})
    (advice,) = recommend(*run(precision="bfloat16"), rules=[rule])
    assert (advice.expected_gain, "finds no such change" in advice.expected) == (None, True)


def test_where_the_planner_can_not_tell_the_advice_says_what_to_measure() -> None:
    """A CPU, another architecture, a card that nobody knows: no gain is claimed."""
    tiny = make_labels(cuda=True, precision_actual="int8", architecture="tiny")
    for found, why in (
        (run(card=None, busy={Stage.DECODE: 1.0}), "Compare decode's time"),
        (run(gpu=0.8, labels=tiny), "knows ti2v-5b and not tiny"),
        (run(gpu=0.8, card=("NVIDIA Unheard", "9.9", 24_000)), "peaks of NVIDIA Unheard are not known"),
    ):
        advice = recommend(*found, rules=RULES)
        assert [each.expected_gain for each in advice if why in each.expected] == [None]


def test_the_largest_gain_comes_first_and_the_unknown_last() -> None:
    """Equal ones by the rule's name."""
    found = run(precision="bfloat16", gpu=0.5, tiled=True, gpu_node=1, busy={Stage.WRITE: 1.0, Stage.LOAD: 1.0})
    advice = recommend(*found, rules=RULES[::-1])
    known = [each.expected_gain or 0.0 for each in advice[:3]]
    assert known == sorted(known, reverse=True) and min(known) > 0.05
    assert [(each.rule, each.expected_gain) for each in advice[3:]] == [
        ("load_on_one_core", None),
        ("numa_unbound", None),
        ("write_serial", None),
    ]
    assert {each.rule for each in advice[:3]} == {"gpu_waits", "faster_precision", "vram_unused"}


def test_a_run_that_fell_back_is_advised_on_what_it_really_ran() -> None:
    """fp8 was asked for and bf16 ran: the row enters no comparison, the advice is about bf16."""
    labels = make_labels(cuda=True, precision_requested="fp8", precision_actual="bfloat16", fallback=True, attempts=2)
    found = run(labels=labels)
    assert (found[0].labels.comparable, fired(found)) == (False, {"faster_precision"})


@pytest.mark.parametrize(
    "broken",
    [
        lambda: Condition(metric="wishes", comparison="<", threshold=1),
        lambda: Condition(metric="threads", comparison="<", threshold=1, says="{nothing}"),
        lambda: Condition(metric="threads", comparison="<", threshold=1, says="{value.real.nothing}"),
        lambda: Change(what="nonsense", fields={"colour": "blue"}),
        lambda: Change(what="nonsense", fields={"transformer": "fp3"}),
        lambda: Change(what="nonsense", fields={"vae": "int8"}),
        lambda: Change(what="nonsense", fields={"tile": (256, 256, 0, 0)}),
        lambda: Change(what="nonsense", fields={"tile": (0, 256, 192, 192)}),
        lambda: Rule(id="no triggers", triggers=(), action="", measure=""),
    ],
)
def test_a_rule_that_could_fail_later_is_refused_when_it_is_made(broken: Callable[[], object]) -> None:
    """A figure that is not measured, a sentence that can't be filled in, a change of nothing."""
    with pytest.raises(ValidationError):
        broken()


def test_a_rule_that_fails_costs_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """By name; the others are heard, and a VAE in fp16 is something to predict and not to fail on."""

    class Broken(Change):
        def applied(self, configuration: Configuration) -> Configuration:
            raise ZeroDivisionError("strides of 0")

    idle = next(rule for rule in RULES if rule.id == "gpu_waits")
    half = Change(what="a VAE in fp16", fields={"vae": Precision.FP16})
    rules = [
        idle.model_copy(update={"id": "broken", "changes": (Broken(what="nonsense", fields={}),)}),
        idle.model_copy(update={"changes": (half,)}),
    ]
    advice = recommend(*run(gpu=0.8), rules=rules)
    assert [(each.rule, each.expected_gain is not None) for each in advice] == [("gpu_waits", True)]
    (said,) = caplog.messages
    assert said.startswith("The rule broken gives no advice on this run (ZeroDivisionError: strides of 0): ")


def test_precisions_of_an_outlook_are_those_that_ran() -> None:
    """From the census, not from the recipe."""
    outlook = outlook_of(run(precision="float8_e4m3fn")[0])
    assert isinstance(outlook, Outlook)
    assert outlook.configuration.transformer is Precision.FP8
