"""The time model corrected by the runs that a card already did: a factor a stage, and which runs it is from.

A factor is the median over runs of measured by predicted seconds, each run by the median of its measured repeats, the
prediction being that of the run's own configuration and workload. It is applied to every configuration on that card:
what a card's clocks, cooling and driver do to a stage they do to its neighbours too.

The interval around it is three median absolute deviations of the runs, within bounds. Not narrower than 1.1 each way:
the runs are of a few configurations and the plan speaks of others, and from one to the other the model errs by up to
5 % in a step (``docs/planning.md``), to which power and clocks add several. Of a decode it is 1.2, because there the
same table has 17 % for tiles. Not wider than the model's own 1.25: with runs of a card at hand no less is known of it
than without any.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import is_named
from wan22core.planning.calibration import time_factors
from wan22core.planning.configuration import Mechanism, configuration_of
from wan22core.planning.time_model import SPREAD, Estimate, Rates, TimeModel
from wan22core.records import RepeatKind, RunRecord, Stage, StageRecord, StageStatus
from wan22core.specs import Architecture
from wan22core.statistics import summarize

MIN_RUNS, MIN_REPEATS = 2, 3
_NARROWEST, _NARROWEST_DECODE = 1.1, 1.2
_DEVIATIONS = 3.0
_STAGES = (Stage.LOAD, Stage.ENCODE, Stage.ENCODE_IMAGE, Stage.DENOISE, Stage.DECODE, Stage.WRITE)
_OF_THE_HOST = (Stage.LOAD, Stage.WRITE)
"""Stages that the disk and the CPU do: another machine with the same card tells nothing of them."""


class StageFactor(BaseModel):
    """What the runs say of one stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: float
    """Measured by predicted seconds."""
    spread: float
    """Low is mid / spread, high mid x spread."""
    runs: int
    repeats: int
    first: date
    """Day of the earliest run, UTC."""
    last: date

    def says(self) -> str:
        """Where the factor comes from."""
        return f"calibrated by {self.runs} runs of this device from {self.first} to {self.last}"


class Calibration(BaseModel):
    """Factors of one card, and why a stage has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_name: str
    stages: dict[str, StageFactor]
    reasons: dict[str, str]
    """Why a stage keeps the model's own prediction, in every placement or in those that the reason names."""
    unread: int = 0
    """Runs of the card whose documents this version can't understand."""

    @classmethod
    def none(cls, spec: GpuSpec, reason: str) -> Calibration:
        """No factor for any stage, and why."""
        return cls(device_name=spec.name, stages={}, reasons=dict.fromkeys((stage.value for stage in _STAGES), reason))

    def applied(self, times: dict[str, Estimate], given: Collection[str] = ()) -> dict[str, Estimate]:
        """The predicted seconds of each stage, corrected where the card's runs allow it.

        Stages of ``given`` count with a rate that somebody gave by hand: a factor would take it out again.
        """
        return {stage: time if stage in given else self._corrected(stage, time) for stage, time in times.items()}

    def _corrected(self, stage: str, time: Estimate) -> Estimate:
        found = self.stages.get(stage)
        return time if found is None else Estimate.around(time.mid * found.factor, found.spread)


class _Ratios(NamedTuple):
    """Measured by predicted seconds of one stage in one run, a value for each time that it ran."""

    day: date
    values: list[float]


def calibrate(
    spec: GpuSpec, rates: Rates, runs: Iterable[RunRecord], *, host: str | None, unread: int = 0
) -> Calibration:
    """What ``runs`` say of the card ``spec``; those of other cards, and rows that can't be compared, say nothing.

    ``rates`` must be those of the plan. ``host`` is the machine that is planned for, None for one that is not here:
    loading and writing are calibrated by its own runs only, and loading by those that read a cold page cache. A stage
    that counts with a rate given by hand is not calibrated. ``unread`` runs of the card could not be understood.
    """
    model = TimeModel(spec, time_factors(), rates)
    usable = [(run, times) for run in runs if _counts(run, spec) and (times := _predicted(run, model)) is not None]
    stages: dict[str, StageFactor] = {}
    reasons: dict[str, str] = {}
    for stage in _STAGES:
        found = [each for run, times in usable if (each := _ratios(stage, run, times, host)).values]
        if given := _given(stage, model):
            reasons[stage.value] = given
        if _are_enough(found):
            stages[stage.value] = _factor(stage, found)
        else:
            reasons.setdefault(stage.value, _why_not(stage, found, len(usable)) + _unread(unread))
    return Calibration(device_name=spec.name, stages=stages, reasons=reasons, unread=unread)


def _given(stage: Stage, model: TimeModel) -> str | None:
    """What of a stage is not calibrated because somebody gave its rate by hand; None where nothing is."""
    if stage.value in model.given_stages(Mechanism.RESIDENT):
        return "a rate that it counts with was given by hand"
    if any(stage.value in model.given_stages(mechanism) for mechanism in Mechanism):
        return "the rate of copies, with which placements that bring components to the card count, was given by hand"
    return None


def _unread(count: int) -> str:
    return f"; {count} of its runs can't be understood by this version" if count else ""


def _counts(run: RunRecord, spec: GpuSpec) -> bool:
    """Whether the run is one of this card whose rows may be believed and compared."""
    labels = run.labels
    return (
        labels.architecture == Architecture.TI2V_5B.value
        and labels.comparable
        and not labels.emulated
        and not labels.foreign_process
        and run.error is None
        and run.integrity.verdict == "pass"
        and _is_card(run, spec)
    )


def _is_card(run: RunRecord, spec: GpuSpec) -> bool:
    """By the name in the labels; of two cards under one name the memory tells which."""
    name, gpu = run.labels.device_name, run.hardware.gpu_of(run.labels.device)
    if name is None or run.labels.device == "cpu":
        return False
    return is_named(spec, name, gpu.vram_total_mib.value if gpu is not None else None)


def _predicted(run: RunRecord, model: TimeModel) -> dict[str, Estimate] | None:
    """Of the stages that may be compared, in the precision that ran; None where the model has no rate for that."""
    configuration = configuration_of(run.spec.recipe, run.labels.precision_actual)
    times = None if configuration is None else model.stages(configuration, run.spec.workload)
    if configuration is None or times is None:
        return None
    given = model.given_stages(configuration.mechanism)
    return {stage: time for stage, time in times.items() if stage not in given}


def _ratios(stage: Stage, run: RunRecord, predicted: dict[str, Estimate], host: str | None) -> _Ratios:
    day = run.created_at.date()
    if stage.value not in predicted or (stage in _OF_THE_HOST and run.labels.host != host):
        return _Ratios(day, [])
    measured = _load_s(run) if stage is Stage.LOAD else _walls_s(run.stages, stage, RepeatKind.MEASURED)
    return _Ratios(day, [wall_s / predicted[stage.value].mid for wall_s in measured])


def _load_s(run: RunRecord) -> list[float]:
    """The one load of a run, quantizing included, as it is judged; none where the page cache may have helped."""
    load = _walls_s(run.stages, Stage.LOAD, RepeatKind.SETUP)
    if run.labels.page_cache != "cold" or len(load) != 1:
        return []
    return [load[0] + sum(_walls_s(run.stages, Stage.QUANTIZE, RepeatKind.SETUP))]


def _walls_s(stages: Sequence[StageRecord], stage: Stage, kind: RepeatKind) -> list[float]:
    whole = [each for each in stages if each.stage is stage and each.kind is kind and each.component is None]
    return [each.wall_s for each in whole if each.status is StageStatus.OK and each.wall_s is not None]


def _are_enough(found: Sequence[_Ratios]) -> bool:
    return len(found) >= MIN_RUNS and _repeats(found) >= MIN_REPEATS


def _repeats(found: Sequence[_Ratios]) -> int:
    return sum(len(each.values) for each in found)


def _factor(stage: Stage, found: Sequence[_Ratios]) -> StageFactor:
    over_runs = summarize([summarize(each.values).median for each in found])
    assert over_runs.median is not None and over_runs.mad is not None
    narrowest = _NARROWEST_DECODE if stage is Stage.DECODE else _NARROWEST
    spread = 1 + _DEVIATIONS * over_runs.mad / over_runs.median
    return StageFactor(
        factor=over_runs.median,
        spread=min(max(spread, narrowest), SPREAD),
        runs=len(found),
        repeats=_repeats(found),
        first=min(each.day for each in found),
        last=max(each.day for each in found),
    )


def _why_not(stage: Stage, found: Sequence[_Ratios], usable: int) -> str:
    if not usable:
        return "the history has no comparable run of this card"
    if not found:
        needs = {
            Stage.LOAD: "no run of this host is known to have read a cold page cache",
            Stage.WRITE: "no run of this card was on this host",
        }
        return needs.get(stage, "no run of this card measured it")
    return f"{len(found)} of {MIN_RUNS} runs and {_repeats(found)} of {MIN_REPEATS} repeats that are needed are there"
