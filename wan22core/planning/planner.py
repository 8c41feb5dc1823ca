"""What would run on a card: every configuration's peaks and times, the targets' verdicts, the recommended one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial

from pydantic import BaseModel, ConfigDict

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.planning.calibration import memory_factors, time_factors
from wan22core.planning.configuration import Configuration
from wan22core.planning.device_calibration import Calibration
from wan22core.planning.memory_model import Peak, peaks
from wan22core.planning.tiles import SAFETY, tiles
from wan22core.planning.time_model import Estimate, Rates, TimeModel
from wan22core.recipes import RECIPES
from wan22core.specs import CacheMethod, Recipe, Tiling, Workload
from wan22core.targets import EXACT_CLASSES, TARGETS, RecipeClass, Target

Times = dict[str, Estimate]
_GENERATION = ("encode", "encode_image", "denoise", "decode", "write")


class Predicted(StrEnum):
    """A target before anything was measured: pass and fail only where the whole interval agrees."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    UNCERTAIN = "uncertain"
    NOT_ASSERTED = "not_asserted"


class Candidate(BaseModel):
    """One configuration on the card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configuration: Configuration
    runs: bool
    """Whether the card has the instructions it needs."""
    fits: bool
    spare_mib: float
    """What is left below the limit; negative by how much it does not fit."""
    peaks: dict[str, Peak]
    times: dict[str, Estimate]
    generation: Estimate | None
    targets: dict[str, Predicted]

    @property
    def is_bound(self) -> bool:
        """Whether the times are of a video that leaves nothing out, because its content decides what it does."""
        cache = self.configuration.step_cache
        return cache is not None and cache.method is CacheMethod.FIRST_BLOCK

    @property
    def exact(self) -> bool:
        """Whether a gate would take it."""
        return self.configuration.recipe_class in EXACT_CLASSES


class Plan(BaseModel):
    """All candidates for one card and workload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: GpuSpec
    workload: Workload
    total_mib: float
    used_mib: float
    """What others hold of the card."""
    limit_mib: float
    """What a process may take: the rest of the card, or the ceiling."""
    recommended: str | None
    """The fastest exact recipe that fits."""
    candidates: list[Candidate]
    advice: list[str]
    rates: Rates
    """The host's, that the times count with."""
    calibration: Calibration | None
    """What the card's own runs correct; None where nobody looked for any."""


def plan(
    gpu: GpuSpec,
    total_mib: float,
    workload: Workload,
    *,
    used_mib: float = 0.0,
    ceiling_mib: int | None = None,
    rates: Rates | None = None,
    calibration: Calibration | None = None,
) -> Plan:
    """Every configuration on ``gpu`` of ``total_mib``, under an emulated ceiling where one is given.

    ``calibration`` must be one of ``gpu``, with the same ``rates``.
    """
    limit_mib = min(total_mib - used_mib, float(ceiling_mib or total_mib))
    rates = rates or Rates()
    times_of = partial(_times, TimeModel(gpu, time_factors(), rates), calibration)
    configurations = [_of(make(), workload, limit_mib) for make in RECIPES.values()]
    candidates = [candidate(each, workload, limit_mib, times_of(each, workload), total_mib) for each in configurations]
    usable = sorted((each for each in candidates if each.fits and each.exact), key=_generation_mid)
    return Plan(
        gpu=gpu,
        workload=workload,
        total_mib=total_mib,
        used_mib=used_mib,
        limit_mib=limit_mib,
        recommended=usable[0].configuration.name if usable else None,
        candidates=candidates,
        advice=_advice(usable, workload, times_of) + _approximate_advice(usable, candidates, workload),
        rates=rates,
        calibration=calibration,
    )


def _of(recipe: Recipe, workload: Workload, limit_mib: float) -> Configuration:
    """A recipe as it would run there: tiles that are chosen by the room are the largest beside which all fits."""
    found = Configuration.of(recipe)
    if recipe.vae_tiling is not Tiling.AUTO:
        return found
    tried = [found.model_copy(update={"tile": tile}) for tile in tiles(workload)]
    limit_mib = _within(found, limit_mib)
    return next((each for each in tried if _highest_mib(each, workload) * SAFETY <= limit_mib), tried[-1])


def _within(configuration: Configuration, limit_mib: float) -> float:
    """What it may take of ``limit_mib``: its own budget, where that is less."""
    return min(limit_mib, configuration.budget_mib or limit_mib)


def _highest_mib(configuration: Configuration, workload: Workload) -> float:
    return max(peak.process_mib for peak in peaks(configuration, workload, memory_factors()).values())


def _times(
    model: TimeModel, calibration: Calibration | None, configuration: Configuration, workload: Workload
) -> Times | None:
    times = model.stages(configuration, workload)
    if times is None or calibration is None:
        return times
    return calibration.applied(times, model.given_stages(configuration.mechanism))


def candidate(
    configuration: Configuration, workload: Workload, limit_mib: float, times: Times | None, total_mib: float
) -> Candidate:
    """One configuration on a card of ``total_mib`` of which ``limit_mib`` may be taken, with its predicted times."""
    found = peaks(configuration, workload, memory_factors())
    limit_mib = _within(configuration, limit_mib)
    highest = _highest_mib(configuration, workload)
    generation = None
    for stage in _GENERATION:
        if times is not None and stage in times:
            generation = times[stage] if generation is None else generation + times[stage]
    share = highest / total_mib
    observed = {
        "load_s": times["load"] if times is not None else None,
        "generation_s": generation,
        "peak_process_mib": Estimate(low=highest / SAFETY, mid=highest, high=highest * SAFETY),
        "memory_efficiency": Estimate(low=share, mid=share, high=share),
        "generation_fps": _per_second(workload.frames, generation),
    }
    return Candidate(
        configuration=configuration,
        runs=times is not None,
        fits=times is not None and highest * SAFETY <= limit_mib,
        spare_mib=limit_mib - highest * SAFETY,
        peaks=found,
        times=times or {},
        generation=generation,
        targets={
            target.name: _verdict(target, workload, configuration.recipe_class, observed.get(target.metric))
            for target in TARGETS
        },
    )


def _generation_mid(candidate: Candidate) -> float:
    return candidate.generation.mid if candidate.generation is not None else float("inf")


def _per_second(frames: int, generation: Estimate | None) -> Estimate | None:
    if generation is None:
        return None
    return Estimate(low=frames / generation.high, mid=frames / generation.mid, high=frames / generation.low)


def _verdict(target: Target, workload: Workload, recipe_class: RecipeClass, estimate: Estimate | None) -> Predicted:
    if target.workload != workload.name or recipe_class not in target.recipe_classes:
        return Predicted.NOT_ASSERTED
    if estimate is None:
        return Predicted.UNCERTAIN
    held = {target.holds(estimate.low), target.holds(estimate.high)}
    return Predicted.UNCERTAIN if len(held) == 2 else Predicted.PASS if held == {True} else Predicted.FAIL


def _advice(
    usable: Sequence[Candidate], workload: Workload, times_of: Callable[[Configuration, Workload], Times | None]
) -> list[str]:
    """What to do when the card misses the target of the generation at this workload, best first."""
    target = _generation_target(workload)
    if target is None:
        return []
    if not usable:
        return ["No exact configuration fits this card; a smaller workload (2s-480p) or a larger card would."]
    best = usable[0]
    name, seconds = best.configuration.name, _generation_mid(best)
    if target.holds(best.generation.high if best.generation is not None else seconds):
        return []
    beside = seconds - best.times["denoise"].mid
    step = best.times["denoise"].mid / workload.steps
    steps = int((target.limit - beside) / step)
    lines = [
        f"The fastest exact configuration that fits, {name}, is predicted at {seconds:.0f} s of {target.limit:g} s."
    ]
    if 0 < steps < workload.steps:
        lines.append(f"With {name} about {steps} steps instead of {workload.steps} would take {target.limit:g} s.")
    smaller = workload.model_copy(update={"name": "2s-480p", "width": 832, "height": 480})
    times = times_of(best.configuration, smaller)
    if times is not None:
        total = sum(times[stage].mid for stage in _GENERATION if stage in times)
        lines.append(f"At 832x480 {name} is predicted at {total:.0f} s.")
    return lines


def _approximate_advice(usable: Sequence[Candidate], candidates: Sequence[Candidate], workload: Workload) -> list[str]:
    """Where no exact recipe is sure of the target: the step cache whose time is known beforehand."""
    target = _generation_target(workload)
    if target is None or any(each.targets[target.name] is Predicted.PASS for each in usable):
        return []
    return [
        f"{each.configuration.name} computes {share:.0%} of the steps and is predicted at "
        f"{_generation_mid(each):.0f} s; it is approximate, and judged by no gate."
        for each in candidates
        if each.fits and (share := _computed_share(each, workload)) is not None
    ]


def _computed_share(candidate: Candidate, workload: Workload) -> float | None:
    cache = candidate.configuration.step_cache
    return None if cache is None else cache.computed_share(workload)


def _generation_target(workload: Workload) -> Target | None:
    """The one on the generation, where it is asserted at this workload."""
    target = next(each for each in TARGETS if each.metric == "generation_s")
    return target if target.workload == workload.name else None
