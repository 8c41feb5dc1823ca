"""What every form of the report shows, as plain text in rows: numbers with units, what is missing with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from wan22core.records import RepeatKind, RunRecord, Stage, StageRecord, StageStatus, TargetVerdict
from wan22core.specs import CacheMethod
from wan22core.statistics import Summary, summarize

_SPEAKING = ("architecture", "workload", "recipe", "weights_source", "device", "device_name", "precision_actual")


@dataclass(frozen=True)
class StageSummary:
    """One stage over the measured repeats."""

    name: str
    seconds: Summary
    warmup_s: float | None
    peak_mib: float | None
    peak_of: str | None
    """Which memory number ``peak_mib`` is."""


def number(value: float | None, unit: str = "") -> str:
    """Three to four significant digits, thousands in groups."""
    if value is None:
        return "not measured"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def limit(target: TargetVerdict) -> str:
    """The limit with its comparison."""
    return f"{target.comparison} {number(target.limit, target.unit)}"


def target_rows(targets: list[TargetVerdict]) -> list[tuple[str, str, str, str, str, str]]:
    """Name, limit, worst observed, median, verdict, reason."""
    return [
        (
            target.name,
            limit(target),
            number(target.observed, target.unit),
            number(target.median, target.unit),
            target.verdict.value,
            target.reason or "",
        )
        for target in targets
    ]


def regression_rows(record: RunRecord) -> list[tuple[str, str, str, str, str]]:
    """Metric, baseline, this run, verdict, what was found."""
    return [
        (
            each.metric,
            number(each.baseline, each.unit),
            number(each.observed, each.unit),
            each.verdict.value,
            each.reason or "",
        )
        for each in record.regressions
    ]


def stage_summaries(record: RunRecord) -> list[StageSummary]:
    """The whole stages in the order in which they ran first."""
    whole = [stage for stage in record.stages if stage.component is None]
    return [
        _summary(name, [s for s in whole if s.stage.value == name])
        for name in dict.fromkeys(s.stage.value for s in whole)
    ]


def _summary(name: str, stages: list[StageRecord]) -> StageSummary:
    ended = [stage for stage in stages if stage.status is StageStatus.OK]
    measured = [stage.wall_s for stage in ended if stage.kind is not RepeatKind.WARMUP]
    warmups = [stage.wall_s for stage in ended if stage.kind is RepeatKind.WARMUP]
    process = [stage.peak_process_mib for stage in ended if stage.peak_process_mib is not None]
    rss = [stage.peak_rss_mib for stage in ended if stage.peak_rss_mib is not None]
    peak, of = (max(process), "process") if process else (max(rss), "resident") if rss else (None, None)
    return StageSummary(name, summarize(measured), summarize(warmups).median, peak, of)


def component_rows(record: RunRecord) -> list[tuple[str, str, str, str]]:
    """Component, seconds, bytes and rate: of the first load, and of what a stage then brought to the device."""
    rows: dict[str, tuple[str, str, str, str]] = {}
    for part in record.stages:
        name = f"{part.component}" if part.stage is Stage.LOAD else f"{part.component}, for {part.stage.value}"
        if part.component is None or part.repeat != 0 or part.wall_s is None or name in rows:
            continue
        size, rate = "", ""
        if part.bytes_read:
            size = f"{part.bytes_read / 2**20:,.0f} MiB"
            rate = f"{part.bytes_read / part.wall_s / 1e9:.3g} GB/s"
        rows[name] = (name, number(part.wall_s, "s"), size, rate)
    return list(rows.values())


def failures(record: RunRecord) -> list[str]:
    """What does not hold about the records, one sentence each."""
    return [
        ("could not be evaluated: " if failed.could_not_evaluate else "does not hold: ")
        + failed.expectation
        + (f" (observed {failed.observed})" if failed.observed is not None else "")
        for failed in record.integrity.failed
    ]


def remarks(record: RunRecord) -> list[str]:
    """What must be known to read the numbers rightly."""
    labels, found = record.labels, []
    if labels.weights_source == "random":
        found.append("The weights are random: times and memory are real, nothing is said about image quality.")
    if labels.embeddings_cached:
        found.append("The prompt's embeddings were read from the cache: no encode was measured.")
    if labels.emulated:
        found.append(f"Measured under an emulated ceiling of {labels.vram_limit_mib} MiB on a larger card.")
    if labels.fallback:
        found.append(f"{labels.precision_requested} was asked for and {labels.precision_actual} was run.")
    found += _left_out(record)
    found += record.remarks
    if labels.attempts > 1:
        found.append(f"{labels.attempts} attempts were needed: the run enters no baseline and no comparison.")
    if labels.thermally_throttled:
        found.append("The GPU was too hot and lowered its clocks: the times are not those of a cool card.")
    if labels.foreign_process:
        found.append("Another process used the GPU during the run.")
    return found


def _left_out(record: RunRecord) -> list[str]:
    """What a step cache did, by the first denoise that has it."""
    counted = [(stage.forwards, stage.cached_forwards) for stage in record.stages if stage.forwards is not None]
    if not counted:
        return []
    found = [f"{counted[0][1]} of {counted[0][0]} forwards took the blocks' result from an earlier step: approximate."]
    cache = record.spec.recipe.step_cache
    if record.labels.weights_source == "random" and cache is not None and cache.method is CacheMethod.FIRST_BLOCK:
        found.append("Which forwards those are depends on the content: on random weights the time says nothing.")
    return found


def host_settings(record: RunRecord) -> list[tuple[str, str, str, str, str]]:
    """Setting, asked, read back, whether it holds, remark."""
    return [
        (
            each.name.replace("_", " ") if each.name.islower() else each.name,
            each.asked,
            each.read_back or "not read back",
            "yes" if each.held else "no",
            each.reason or "",
        )
        for each in record.settings
    ]


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """The labels that tell one run from another."""
    labels = record.labels.model_dump(mode="json")
    return [(name.replace("_", " "), str(labels[name])) for name in _SPEAKING if labels[name] is not None]


def alerts(record: RunRecord) -> list[tuple[str, str, str, str, str, str]]:
    """Quantity, level, threshold, worst, from when to when on the run's clock, what was done."""
    return [
        (
            each.quantity.replace("_", " "),
            each.level.value,
            number(each.threshold, each.unit),
            number(each.worst, each.unit),
            f"{each.opened_s:.0f} s to {'the end' if each.resolved_s is None else f'{each.resolved_s:.0f} s'}",
            each.action or "",
        )
        for each in record.alerts
    ]


def recommendations(record: RunRecord) -> list[tuple[str, str, str, str, str]]:
    """Rule, because, action, what it should bring, where it is explained; in the order of the record."""
    return [(each.rule, each.because, each.action, each.expected, each.docs) for each in record.recommendations]


def environment(record: RunRecord) -> list[tuple[str, str]]:
    """What may change under a series."""
    return [(name, value) for name, value in record.environment.items() if value is not None]
