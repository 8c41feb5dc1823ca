"""What a change would bring: the planner's figures for the run's own configuration, with and without it."""

from __future__ import annotations

from dataclasses import dataclass

from wan22core.planning.calibration import time_factors
from wan22core.planning.configuration import Configuration, configuration_of
from wan22core.planning.planner import Candidate, candidate
from wan22core.planning.rule import Change, Rule
from wan22core.planning.run_metrics import gpu_spec_of
from wan22core.planning.time_model import TimeModel
from wan22core.recipes import RECIPES
from wan22core.records import Record, RunRecord
from wan22core.specs import Architecture, Workload

ROOM = 0.90
"""Share of the physical card that all processes together should stay below: where the design acts."""
_NAMES = {"name", "recipe_class", "budget_mib"}


class Effect(Record):
    """What following a rule should bring."""

    expected: str
    """In a sentence or two."""
    gain: float | None
    """Share of the generation's time that is saved, negative where it costs time; None where it can't be told."""


@dataclass(frozen=True)
class Outlook:
    """A run as the planner sees it."""

    configuration: Configuration
    """The run's own, in the precision that it really had."""
    workload: Workload
    model: TimeModel
    total_mib: float
    used_mib: float
    """What others held of the card when it was looked at."""
    ceiling_mib: int | None

    def predicted(self, configuration: Configuration) -> Candidate:
        """Peaks and times of a configuration on the run's card."""
        limit_mib = min(self.total_mib - self.used_mib, float(self.ceiling_mib or self.total_mib))
        times = self.model.stages(configuration, self.workload)
        return candidate(configuration, self.workload, limit_mib, times, self.total_mib)

    def device_share(self, peak_mib: float) -> float:
        """Use of the physical card when this process peaks at ``peak_mib`` beside the others."""
        return (peak_mib + self.used_mib) / self.total_mib


def outlook_of(record: RunRecord) -> Outlook | str:
    """The run for the planner, or why it can't tell anything about it."""
    spec, labels = gpu_spec_of(record), record.labels
    if spec.value is None:
        return spec.reason or ""
    if labels.architecture != Architecture.TI2V_5B.value:
        return f"it knows {Architecture.TI2V_5B.value} and not {labels.architecture}"
    configuration = configuration_of(record.spec.recipe, labels.precision_actual)
    if configuration is None:
        return f"it has no rate for a transformer in {labels.precision_actual or 'an unknown precision'}"
    gpu = record.hardware.gpu_of(labels.device)
    if gpu is None or gpu.vram_total_mib.value is None or gpu.vram_used_mib.value is None:
        return "the card's memory was not read"
    return Outlook(
        configuration=configuration,
        workload=record.spec.workload,
        model=TimeModel(spec.value, time_factors()),
        total_mib=float(gpu.vram_total_mib.value),
        used_mib=float(gpu.vram_used_mib.value),
        ceiling_mib=labels.vram_limit_mib,
    )


def effect_of(rule: Rule, outlook: Outlook | str) -> Effect:
    """The best of a rule's changes by the planner; else what to measure."""
    if not rule.changes:
        return Effect(expected=rule.measure, gain=None)
    if isinstance(outlook, str):
        return Effect(expected=f"The planner can't tell: {outlook}. {rule.measure}", gain=None)
    before = outlook.predicted(outlook.configuration)
    best = _best(rule, before, outlook)
    if best is None or before.generation is None:
        return Effect(
            expected=f"The planner finds no such change that fits this card and helps. {rule.measure}", gain=None
        )
    change, after = best
    gain = 1 - _generation_s(after) / _generation_s(before)
    return Effect(expected=_sentence(rule, change, before, after), gain=gain)


def _best(rule: Rule, before: Candidate, outlook: Outlook) -> tuple[Change, Candidate] | None:
    """The fastest of the changes that help."""
    found = [(change, outlook.predicted(change.applied(outlook.configuration))) for change in rule.changes]
    helping = [each for each in found if _helps(rule, before, each[1], outlook)]
    return min(helping, key=lambda each: _generation_s(each[1]), default=None)


def _helps(rule: Rule, before: Candidate, after: Candidate, outlook: Outlook) -> bool:
    """Whether a change fits and serves its rule's aim; to be faster it may not fill a card that was not full."""
    held_mib, holds_mib = _peak_mib(before), _peak_mib(after)
    has_room = outlook.device_share(holds_mib) < ROOM
    if rule.aim == "memory":
        return after.fits and has_room and holds_mib < held_mib
    is_faster = _generation_s(after) < _generation_s(before)
    return after.fits and is_faster and (has_room or holds_mib <= held_mib)


def _sentence(rule: Rule, change: Change, before: Candidate, after: Candidate) -> str:
    time = f"a generation of {_generation_s(after):,.1f} s instead of {_generation_s(before):,.1f} s"
    if rule.aim == "memory":
        time = f"a peak of {_peak_mib(after):,.0f} MiB instead of {_peak_mib(before):,.0f} MiB, and {time}"
    later = "" if _is_recipe(after.configuration) else " No recipe of this version does that yet."
    return f"Predicted with {change.what}: {time}.{later}"


def _is_recipe(configuration: Configuration) -> bool:
    """Whether a recipe of this version does just that, whatever it is called."""
    asked = configuration.model_dump(exclude=_NAMES)
    return any(Configuration.of(make()).model_dump(exclude=_NAMES) == asked for make in RECIPES.values())


def _peak_mib(found: Candidate) -> float:
    return max(peak.process_mib for peak in found.peaks.values())


def _generation_s(found: Candidate) -> float:
    return found.generation.mid if found.generation is not None else float("inf")
