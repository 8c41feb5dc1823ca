"""The runs of a suite in their order, and the one record that is made of theirs: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from wan22core.records import (
    Reading,
    RepeatKind,
    RunRecord,
    RunState,
    SimilarityRecord,
    SuiteLoad,
    SuitePair,
    SuiteRecord,
    SuiteRole,
    SuiteSide,
    SuiteStep,
    VramBenchmark,
)
from wan22core.session.folder import RunFolder
from wan22core.specs import BenchmarkSpec, Recipe
from wan22core.statistics import summarize

Peak = Literal["peak_process_mib", "peak_rss_mib"]

_SAVING_WEIGHT, _TIME_WEIGHT = 0.7, 0.3
_WORST_FIRST = list(RunState)


class PlannedStep(NamedTuple):
    """One run of a suite."""

    role: SuiteRole
    pair: int | None
    spec: BenchmarkSpec


class SuiteHeader(NamedTuple):
    """What is known of a suite before its runs."""

    folder: RunFolder
    command: str
    not_cold: str | None
    """Why the page cache may have held weights at the first load."""


def suite_steps(spec: BenchmarkSpec, before: Recipe, pairs: int) -> list[PlannedStep]:
    """A cold load first, then the pairs; which side is first alternates, so that a drift meets both.

    The first pair keeps its frames: its two videos are compared.
    """
    cold = spec.model_copy(update={"repeats": 1, "warmups": 0})
    steps = [PlannedStep(SuiteRole.COLD_LOAD, None, cold)]
    for pair in range(pairs):
        kept = spec.model_copy(update={"keep_frames": spec.keep_frames or pair == 0})
        sides = [
            PlannedStep(SuiteRole.BEFORE, pair, kept.model_copy(update={"recipe": before})),
            PlannedStep(SuiteRole.AFTER, pair, kept),
        ]
        steps += sides if pair % 2 == 0 else reversed(sides)
    return steps


def assemble_suite(
    header: SuiteHeader, steps: Sequence[SuiteStep], similarity: SimilarityRecord | None, similarity_reason: str | None
) -> SuiteRecord | None:
    """The record of a suite; None where the asked recipe left no run at all.

    Of the asked recipe's runs the one with the worst verdict stands for the suite.
    """
    asked = [step.run for step in steps if step.role is not SuiteRole.BEFORE and step.run is not None]
    if not asked:
        return None
    shown = min(asked, key=lambda run: _WORST_FIRST.index(run.verdict))
    memory = vram_benchmark(steps)
    values: dict[str, Any] = {name: getattr(shown, name) for name in RunRecord.model_fields}
    values |= {"command": header.command, "files": shown.files | {"suite": str(header.folder.path / "suite.json")}}
    return SuiteRecord(
        **values,
        suite_id=header.folder.run_id,
        suite_dir=str(header.folder.path),
        suite_summary=_summary(memory),
        steps=list(steps),
        load=_load(steps, header.not_cold),
        vram_benchmark=memory,
        similarity=similarity,
        similarity_reason=similarity_reason,
    )


def vram_benchmark(steps: Sequence[SuiteStep]) -> VramBenchmark:
    """Saving, time price and score over the pairs of which both runs may be compared."""
    runs = [step.run for step in steps if step.run is not None]
    on_cpu = all(run.labels.device == "cpu" for run in runs)
    metric: Peak = "peak_rss_mib" if on_cpu else "peak_process_mib"
    pairs = _pairs(steps)
    counting = {pair.pair for pair in pairs if pair.reason is None}
    before, after = (_side(steps, role, counting, metric) for role in (SuiteRole.BEFORE, SuiteRole.AFTER))
    prices = summarize([pair.time_price_pct for pair in pairs if pair.reason is None])
    saving_mib = None if before.peak_mib is None or after.peak_mib is None else before.peak_mib - after.peak_mib
    saving_pct = 100 * saving_mib / before.peak_mib if saving_mib is not None and before.peak_mib else None
    reason = None
    if not counting:
        reason = "; ".join(dict.fromkeys(pair.reason for pair in pairs if pair.reason)) or "there is no pair"
    elif saving_mib is None:
        reason = f"{metric} was not measured on both sides"
    return VramBenchmark(
        metric=metric,
        vram_reason="the runs used no GPU: their resident memory is compared instead" if on_cpu else None,
        before=before,
        after=after,
        pairs=pairs,
        saving_mib=saving_mib,
        saving_pct=saving_pct,
        time_price_pct=prices.median,
        time_price_low_pct=prices.minimum,
        time_price_high_pct=prices.maximum,
        score=score(saving_pct, prices.median),
        reason=reason,
    )


def score(saving_pct: float | None, time_price_pct: float | None) -> float | None:
    """Points for what was saved less what it costs, 70 to 30; None as soon as one of them is missing.

    The description that this project began with names the two weights and no formula: this one is this project's.
    """
    if saving_pct is None or time_price_pct is None:
        return None
    return _SAVING_WEIGHT * saving_pct - _TIME_WEIGHT * time_price_pct


def _pairs(steps: Sequence[SuiteStep]) -> list[SuitePair]:
    numbers = dict.fromkeys(step.pair for step in steps if step.pair is not None)
    return [_pair(number, [step for step in steps if step.pair == number]) for number in numbers]


def _pair(number: int, steps: Sequence[SuiteStep]) -> SuitePair:
    by_role = {step.role: step for step in steps}
    before_s, after_s = (
        summarize(_measured(by_role[role].run, "generation_s")).median for role in (SuiteRole.BEFORE, SuiteRole.AFTER)
    )
    reasons = [f"{step.recipe} {why}" for step in steps if (why := _does_not_count(step)) is not None]
    price_pct = 100 * (after_s / before_s - 1) if before_s and after_s is not None else None
    return SuitePair(
        pair=number,
        first=steps[0].role,
        generation_before_s=before_s,
        generation_after_s=after_s,
        time_price_pct=price_pct if not reasons else None,
        reason="; ".join(reasons) or None,
    )


def _does_not_count(step: SuiteStep) -> str | None:
    """Why a run is shown and enters no figure."""
    if step.run is None:
        return "left no run"
    if step.run.error is not None:
        return f"broke: {step.run.error.message}"
    if step.run.verdict is RunState.INTEGRITY_FAILED:
        return "left records that can't be believed"
    labels = step.run.labels
    if labels.comparable:
        return None
    whys = {"fell back": labels.fallback, "was slowed by heat": labels.thermally_throttled}
    return next((why for why, is_so in whys.items() if is_so), "needed a second attempt")


def _side(steps: Sequence[SuiteStep], role: SuiteRole, counting: set[int], metric: Peak) -> SuiteSide:
    own = [step for step in steps if step.role is role]
    runs = [step.run for step in own if step.pair in counting]
    errors = [error for step in own if (error := step.error or (step.run.error if step.run else None)) is not None]
    return SuiteSide(
        recipe=own[0].recipe,
        runs=len(runs),
        peak_mib=summarize([value for run in runs for value in _measured(run, metric)]).maximum,
        generation_s=summarize([value for run in runs for value in _measured(run, "generation_s")]).median,
        error_code=errors[0].code if errors else None,
        error=errors[0].message if errors else None,
    )


def _measured(run: RunRecord | None, metric: Literal["generation_s", "load_s"] | Peak) -> list[float | None]:
    rows = run.repeats if run is not None else []
    return [getattr(row, metric) for row in rows if row.kind is RepeatKind.MEASURED]


def _load(steps: Sequence[SuiteStep], not_cold: str | None) -> SuiteLoad:
    """Each run loads once, and all its rows carry that load; what is cold or warm is said by the run's own label."""
    asked = [step for step in steps if step.role is not SuiteRole.BEFORE and step.run is not None]
    return SuiteLoad(
        recipe=asked[0].recipe,
        cold_s=_load_reading(asked, lambda step: step.role is SuiteRole.COLD_LOAD, "cold", not_cold),
        warm_s=_load_reading(asked, lambda step: step.role is SuiteRole.AFTER, "warm", None),
    )


def _load_reading(
    steps: Sequence[SuiteStep], wanted: Callable[[SuiteStep], bool], page_cache: str, known_reason: str | None
) -> Reading[float]:
    runs = [step.run for step in steps if step.run is not None and wanted(step)]
    found = [run for run in runs if run.labels.page_cache == page_cache]
    seconds = summarize([value for run in found for value in _measured(run, "load_s")[:1]])
    source = f"load_s of {seconds.n} {page_cache} runs"
    if seconds.median is not None:
        return Reading[float](value=seconds.median, source=source)
    labels = ", ".join(dict.fromkeys(run.labels.page_cache for run in runs)) or "not seen"
    return Reading[float].missing(source, known_reason or f"the state of the page cache was {labels}")


def _summary(memory: VramBenchmark) -> str:
    before, after = memory.before, memory.after
    if before.recipe == after.recipe:
        start = f"{after.recipe} beside itself, which shows this machine's noise:"
    else:
        start = f"{after.recipe} beside {before.recipe}:"
    broken = [f"{side.recipe} broke ({side.error_code})" for side in (before, after) if side.error_code is not None]
    if memory.saving_pct is None or memory.saving_mib is None or memory.time_price_pct is None:
        return f"{start} no saving was measured, because {'; '.join(broken) or memory.reason or 'figures are missing'}."
    kind = "resident memory" if memory.vram_reason else "VRAM"
    return (
        f"{start} {memory.saving_mib:,.0f} MiB ({memory.saving_pct:.1f} %) less {kind}, "
        f"{memory.time_price_pct:+.1f} % time, score {memory.score:.1f}."
    )
