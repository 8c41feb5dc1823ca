"""A plan corrected by the runs of its card: which rows count, how much, and what is said of them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from tests.builders import make_labels, make_run_record
from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import find_spec
from wan22core.planning.calibration import time_factors
from wan22core.planning.configuration import Configuration, Mechanism, configuration_of
from wan22core.planning.device_calibration import Calibration, calibrate
from wan22core.planning.planner import Plan, plan
from wan22core.planning.time_model import GIVEN, Rates, TimeModel
from wan22core.recipes import recipe
from wan22core.records import RepeatKind, RunError, RunRecord, Stage
from wan22core.specs import WORKLOADS, Placement

TARGET = WORKLOADS["2s-720p"]
H100 = "NVIDIA H100 80GB HBM3"
GENERATION = ("encode", "denoise", "decode", "write")


def card(name: str = H100) -> GpuSpec:
    found = find_spec(name)
    assert found is not None
    return found


def run(ratio: float = 1.2, *, day: int = 20, repeats: int = 2, **labels: Any) -> RunRecord:
    """A run of ``reference`` on an H100 of this host whose stages took ``ratio`` times the prediction."""
    model = TimeModel(card(), time_factors())
    predicted = model.stages(Configuration.of(recipe("reference")), TARGET) or {}
    record = make_run_record(
        cuda=True,
        created_at=datetime(2026, 11, day, 23, tzinfo=UTC),
        labels=make_labels(cuda=True, device_name=H100, **labels),
    )
    stages = [
        stage.model_copy(update={"wall_s": ratio * predicted[stage.stage.value].mid})
        if stage.stage.value in predicted
        else stage
        for stage in record.stages
        if stage.kind is not RepeatKind.MEASURED or stage.repeat < repeats
    ]
    return record.model_copy(update={"stages": stages})


def calibrated(*runs: RunRecord, spec: GpuSpec | None = None, host: str | None = "test") -> Calibration:
    return calibrate(spec or card(), Rates(), runs, host=host)


def planned(calibration: Calibration | None, rates: Rates | None = None) -> Plan:
    spec = card()
    return plan(spec, spec.vram_gib * 1024 * 0.97, TARGET, calibration=calibration, rates=rates)


def of_placement(record: RunRecord, placement: Placement) -> RunRecord:
    recipe = record.spec.recipe.model_copy(update={"placement": placement})
    return record.model_copy(update={"spec": record.spec.model_copy(update={"recipe": recipe})})


def test_runs_that_took_a_fifth_longer_move_the_plan_by_a_fifth() -> None:
    """Every configuration's stages, and what is added up of them; loading stays, as nobody saw a cold cache."""
    found = calibrated(run(day=3), run(day=20))
    assert list(found.stages) == list(GENERATION)
    before, after = planned(None), planned(found)
    for old, new in zip(before.candidates, after.candidates, strict=True):
        for stage in GENERATION:
            assert new.times[stage].mid == pytest.approx(1.2 * old.times[stage].mid)
        assert new.times["load"] == old.times["load"]
        assert old.generation is not None and new.generation is not None
        assert new.generation.mid == pytest.approx(1.2 * old.generation.mid)
    assert found.reasons["load"] == "no run of this host is known to have read a cold page cache"
    assert found.reasons["encode_image"] == "no run of this card measured it"


def test_a_stage_says_which_runs_it_is_from() -> None:
    denoise = calibrated(run(day=3), run(day=20)).stages["denoise"]
    assert (denoise.runs, denoise.repeats, denoise.first, denoise.last) == (2, 4, date(2026, 11, 3), date(2026, 11, 20))
    assert denoise.says() == "calibrated by 2 runs of this device from 2026-11-03 to 2026-11-20"


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"emulated": True, "vram_limit_mib": 12_288}, "under an emulated ceiling"),
        ({"resumed": True}, "resumed"),
        ({"fallback": True}, "fell back"),
        ({"attempts": 2}, "took two attempts"),
        ({"foreign_process": True}, "shared its card"),
        ({"architecture": "tiny"}, "another model"),
        ({"device": "cpu"}, "ran on the CPU"),
        ({"precision_actual": "float32"}, "computed in fp32, which has no rate"),
        ({"precision_actual": None}, "in a precision that nobody counted"),
    ],
)
def test_rows_that_can_not_be_compared_move_nothing(labels: dict[str, Any], why: str) -> None:
    """Three such runs, and one short of enough beside them: no factor, and the reason counts none of them."""
    odd = [run(**labels) for _ in range(3)]
    nothing = calibrated(*odd)
    assert nothing.stages == {}, why
    assert set(nothing.reasons.values()) == {"the history has no comparable run of this card"}
    assert planned(nothing).candidates == planned(None).candidates
    assert calibrated(run(), *odd).stages == {}
    assert calibrated(run(), run(), *odd) == calibrated(run(), run())


def test_runs_of_another_card_move_nothing() -> None:
    """An H100 tells nothing of an RTX 4080, nor of an H100 with other memory."""
    assert calibrated(run(), run(), spec=card("RTX 4080")).stages == {}
    assert calibrated(run(), run(), spec=card("H100 PCIe")).stages == {}


def test_runs_that_broke_or_are_not_believed_move_nothing() -> None:
    error = RunError(code="TIMEOUT", message="It took too long.", next="Wait.", stage=Stage.DENOISE, log=None)
    broken = run().model_copy(update={"error": error})
    doubted = run().model_copy(update={"integrity": run().integrity.model_copy(update={"verdict": "fail"})})
    assert calibrated(run(), broken, doubted).stages == {}


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([2], "1 of 2 runs and 2 of 3 repeats that are needed are there"),
        ([1, 1], "2 of 2 runs and 2 of 3 repeats that are needed are there"),
        ([2, 1], None),
    ],
)
def test_too_few_runs_say_so(runs: list[int], reason: str | None) -> None:
    """Two runs and three repeats; a single run may have had a bad day."""
    found = calibrated(*(run(repeats=repeats) for repeats in runs))
    assert found.reasons.get("denoise") == reason
    assert ("denoise" in found.stages) is (reason is None)


@pytest.mark.parametrize(
    ("ratios", "factor", "spread", "decode"),
    [
        ([1.2, 1.2, 1.2], 1.2, 1.1, 1.2),
        ([1.0, 1.1], 1.05, 1 + 3 * 0.05 / 1.05, 1.2),
        ([0.8, 1.0, 1.2], 1.0, 1.25, 1.25),
        ([0.9, 0.9, 0.9, 3.0], 0.9, 1.1, 1.2),
    ],
)
def test_the_interval_is_the_runs_own_within_bounds(
    ratios: list[float], factor: float, spread: float, decode: float
) -> None:
    """Three deviations, from 1.1 (1.2 for a decode) to the model's 1.25; one odd run among four moves nothing."""
    found = calibrated(*(run(ratio) for ratio in ratios)).stages
    assert found["denoise"].factor == pytest.approx(factor)
    assert found["denoise"].spread == pytest.approx(spread)
    assert found["decode"].spread == pytest.approx(decode)
    times = planned(calibrated(*(run(ratio) for ratio in ratios))).candidates[0].times["denoise"]
    assert times.high / times.low == pytest.approx(spread**2)


def test_load_and_write_are_the_hosts() -> None:
    """By runs of the same host, a load only from a cold page cache; another machine's runs still tell of the card."""
    cold = [run(page_cache="cold") for _ in range(3)]
    assert calibrated(*cold).stages["load"].factor == pytest.approx(1.2)
    assert calibrated(*cold).stages["load"].repeats == 3
    assert calibrated(*[run(page_cache="warm") for _ in range(3)]).stages.keys() == {
        "encode",
        "denoise",
        "decode",
        "write",
    }
    elsewhere = calibrated(*cold, host="another")
    assert elsewhere.stages.keys() == {"encode", "denoise", "decode"}
    assert elsewhere.reasons["write"] == "no run of this card was on this host"
    assert calibrated(*cold, host=None).stages.keys() == {"encode", "denoise", "decode"}


def test_warm_ups_are_no_repeats() -> None:
    """A warm-up ten times as long changes no factor."""
    slow = [
        record.model_copy(
            update={
                "stages": [
                    stage.model_copy(update={"wall_s": 10 * (stage.wall_s or 0)})
                    if stage.kind is RepeatKind.WARMUP
                    else stage
                    for stage in record.stages
                ]
            }
        )
        for record in (run(), run())
    ]
    assert calibrated(*slow) == calibrated(run(), run())


def test_a_run_is_predicted_in_the_precision_that_it_had() -> None:
    """bf16 was asked for and int8 ran: the same seconds are more of a shorter prediction."""
    model, reference = TimeModel(card(), time_factors()), recipe("reference")
    bf16, int8 = (configuration_of(reference, dtype) for dtype in ("bfloat16", "int8"))
    assert bf16 is not None and int8 is not None
    asked, ran = (model.stages(each, TARGET) or {} for each in (bf16, int8))
    found = calibrated(*[run(precision_actual="int8")] * 2).stages
    assert found["denoise"].factor == pytest.approx(1.2 * asked["denoise"].mid / ran["denoise"].mid)
    assert asked["denoise"].mid > 1.1 * ran["denoise"].mid
    assert found["decode"].factor == pytest.approx(1.2)


GIVEN_DISK = Rates(disk_bytes_s=10e9, disk_source=GIVEN)
GIVEN_COPIES = Rates(pageable_bytes_s=20e9, cast_bytes_s=20e9, copy_source=GIVEN)
BY_HAND = "a rate that it counts with was given by hand"


@pytest.mark.parametrize("rates", [GIVEN_DISK, GIVEN_COPIES])
def test_a_rate_given_by_hand_is_not_taken_out_again(rates: Rates) -> None:
    """Runs that read a cold page cache would correct the load to what it was at their rate."""
    cold = [run(page_cache="cold") for _ in range(3)]
    found = calibrate(card(), rates, cold, host="test")
    assert "load" in calibrated(*cold).stages
    assert ("load" in found.stages, found.reasons["load"]) == (False, BY_HAND)
    loads = {name: planned(found, given).candidates[0].times["load"].mid for name, given in (("n", None), ("g", rates))}
    assert loads["g"] < loads["n"]
    assert found.stages["denoise"] == calibrated(*cold).stages["denoise"]


def test_what_brings_components_counts_with_the_rate_of_copies() -> None:
    """Such placements keep the model's own prediction where it was given; what stays on the card is calibrated."""
    found = calibrate(card(), GIVEN_COPIES, [run(), run()], host="test")
    assert found.stages.keys() == set(GENERATION)
    assert {found.reasons[stage] for stage in ("encode", "denoise", "decode")} == {
        "the rate of copies, with which placements that bring components to the card count, was given by hand"
    }
    before, after = (planned(each, GIVEN_COPIES) for each in (None, found))
    stays = Mechanism.RESIDENT, Mechanism.GROUP_BLOCK, Mechanism.GROUP_LEAF, Mechanism.BLOCK_STREAM
    for old, new in zip(before.candidates, after.candidates, strict=True):
        mechanism = new.configuration.mechanism
        corrected = {stage for stage in GENERATION if new.times[stage] != old.times[stage]}
        assert corrected == set(GENERATION) - (
            set() if mechanism is stays[0] else {"encode", "decode"} if mechanism in stays else set(GENERATION[:3])
        )


def test_runs_that_brought_components_say_nothing_then() -> None:
    """Their own times were at another rate than the given one."""
    moved = [of_placement(run(), Placement.ENCODE_THEN_FREE)] * 2
    assert "denoise" in calibrated(*moved).stages
    assert calibrate(card(), GIVEN_COPIES, moved, host="test").stages.keys() == {"write"}
    assert calibrate(card(), GIVEN_DISK, moved, host="test").stages.keys() == set(GENERATION)
