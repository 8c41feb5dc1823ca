"""From stage records to rows: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from wan22core.errors import Wan22Error
from wan22core.records import (
    LoadedComponent,
    MemoryPeaks,
    RepeatKind,
    RepeatRow,
    Stage,
    StageRecord,
    StageStatus,
)
from wan22core.specs import BenchmarkSpec
from wan22core.statistics import summarize

GENERATION_STAGES = frozenset(
    {
        Stage.ENCODE,
        Stage.ENCODE_IMAGE,
        Stage.DENOISE,
        Stage.SAVE_LATENTS,
        Stage.DECODE,
        Stage.WRITE,
        Stage.GENERATE,
    }
)
"""What ``generation_s`` adds up: all that stands between a prompt and a file."""

_LOAD_STAGES = frozenset({Stage.LOAD, Stage.QUANTIZE})
_RATE_FROM_S = 1.0  # a shorter stage has too few samples for a rate to mean anything


def repeat_rows(spec: BenchmarkSpec, stages: Sequence[StageRecord], vram_total_mib: float | None) -> list[RepeatRow]:
    """One row per generation, warm-ups in rows of their own kind.

    Memory peaks cover the load as well as the generation: a process that peaked while loading has peaked.
    """
    whole = [stage for stage in stages if stage.component is None]
    setup = [stage for stage in whole if stage.kind is RepeatKind.SETUP]
    keys = sorted(
        {(stage.kind, stage.repeat) for stage in whole if stage.kind is not RepeatKind.SETUP},
        key=lambda key: (key[0] is RepeatKind.MEASURED, key[1]),
    )
    rows = []
    for position, (kind, repeat) in enumerate(keys):
        own = [stage for stage in whole if (stage.kind, stage.repeat) == (kind, repeat)]
        parts = [stage for stage in stages if (stage.kind, stage.repeat) == (kind, repeat) and stage.component]
        rows.append(_row(spec, _setup_of(setup, own), own, parts, vram_total_mib, first=position == 0))
    return rows


def _setup_of(setup: list[StageRecord], own: list[StageRecord]) -> list[StageRecord]:
    """The start and load of the life that a generation ended in: after a fallback or a death there are several.

    What an earlier life spent is shown with its stages; the labels say that there was one.
    """
    began = [stage.started_s for stage in own if stage.started_s is not None]
    lives = [stage.repeat for stage in setup if not began or (stage.started_s or 0.0) <= max(began)]
    return [stage for stage in setup if stage.repeat == max(lives)] if lives else []


def _row(
    spec: BenchmarkSpec,
    setup: list[StageRecord],
    own: list[StageRecord],
    parts: list[StageRecord],
    vram_total_mib: float | None,
    *,
    first: bool,
) -> RepeatRow:
    """``parts`` are the components that the generation itself read or brought to the device."""
    peaks = _complete(merge_peaks([*setup, *own]), [*setup, *own])
    generation_s = _sum_of(own, GENERATION_STAGES)
    outputs = [stage for stage in own if stage.stage in (Stage.DENOISE, Stage.DECODE, Stage.WRITE, Stage.GENERATE)]
    produced = [stage.frames_produced for stage in outputs if stage.frames_produced is not None]
    alike = spec.recipe.step_cache is None  # else some steps take milliseconds, and there is no middle
    steps = [step for stage in own for step in stage.step_times_s if alike]
    rates = [
        stage.achieved_rate_hz
        for stage in own
        if stage.achieved_rate_hz is not None and stage.wall_s is not None and stage.wall_s >= _RATE_FROM_S
    ]
    return RepeatRow(
        **peaks.model_dump(),
        kind=own[0].kind,
        repeat=own[0].repeat,
        load_s=_load_s(setup, parts),
        generation_s=generation_s,
        start_to_video_s=_start_to_video_s(setup, own) if first and generation_s is not None else None,
        step_median_s=summarize(steps).median,
        generation_fps=spec.workload.frames / generation_s if generation_s else None,
        memory_efficiency=_ratio(peaks.peak_process_mib, vram_total_mib),
        frames_expected=spec.workload.frames,
        frames_produced=produced[-1] if produced else None,
        output_finite=_all([stage.output_finite for stage in outputs]),
        output_constant=_any([stage.output_constant for stage in outputs]),
        achieved_rate_hz=min(rates) if rates else None,
    )


def _complete(peaks: MemoryPeaks, stages: Sequence[StageRecord]) -> MemoryPeaks:
    """A process peak that leaves a stage out is none: the process may have peaked there."""
    measured = [stage for stage in stages if stage.status is StageStatus.OK and stage.stage is not Stage.START]
    if all(stage.peak_process_mib is not None for stage in measured):
        return peaks
    return peaks.model_copy(update={"peak_process_mib": None, "process_source": None})


def _load_s(setup: list[StageRecord], parts: list[StageRecord]) -> float | None:
    """Reading, casting, quantizing and placing every component, wherever it happened."""
    before_s = _sum_of(setup, _LOAD_STAGES)
    return None if before_s is None else before_s + sum(part.wall_s or 0.0 for part in parts)


def _sum_of(stages: Iterable[StageRecord], wanted: frozenset[Stage]) -> float | None:
    """Seconds of the wanted stages; None as soon as one of them did not end well in the end.

    An attempt that failed before is part of what it took, by the run's clock.
    """
    chosen = [stage for stage in stages if stage.stage in wanted]
    ended = {stage.stage: stage for stage in chosen}
    if not chosen or any(stage.status is not StageStatus.OK or stage.wall_s is None for stage in ended.values()):
        return None
    return sum(
        stage.wall_s if stage.wall_s is not None else (stage.ended_s or 0.0) - (stage.started_s or 0.0)
        for stage in chosen
    )


def _start_to_video_s(setup: list[StageRecord], own: list[StageRecord]) -> float | None:
    began = [*(stage for stage in setup if stage.stage is Stage.START), *own]
    started = [stage.started_s for stage in began if stage.started_s is not None]
    ended = [stage.ended_s for stage in own if stage.ended_s is not None]
    return max(ended) - min(started) if started and ended else None


def merge_peaks(stages: Iterable[MemoryPeaks]) -> MemoryPeaks:
    """The highest of each memory number over ``stages``."""
    found = list(stages)

    def highest(values: Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    sources = {stage.process_source for stage in found if stage.process_source is not None}
    return MemoryPeaks(
        peak_allocated_mib=highest(stage.peak_allocated_mib for stage in found),
        peak_reserved_mib=highest(stage.peak_reserved_mib for stage in found),
        peak_process_mib=highest(stage.peak_process_mib for stage in found),
        peak_device_mib=highest(stage.peak_device_mib for stage in found),
        peak_rss_mib=highest(stage.peak_rss_mib for stage in found),
        process_source="+".join(sorted(sources)) or None,
    )


def start_record(
    life: int, outcome: float | Wan22Error, asked_s: float, ended_s: float, deadline_s: float
) -> StageRecord:
    """The start of a worker, of its seconds or its error: it began when it was spawned, maybe before it was asked."""
    failed = outcome if isinstance(outcome, Wan22Error) else None
    wall_s = outcome if isinstance(outcome, float) else None
    return StageRecord(
        stage=Stage.START,
        kind=RepeatKind.SETUP,
        repeat=life - 1,
        status=StageStatus.OK if failed is None else StageStatus.FAILED,
        wall_s=wall_s,
        started_s=max(0.0, min(asked_s, ended_s - (wall_s or 0.0))),
        ended_s=ended_s,
        deadline_s=deadline_s,
        attempt=life,
        error_code=failed.code if failed is not None else None,
        error=failed.message if failed is not None else None,
    )


def stage_records(
    common: dict[str, Any],
    measured: dict[str, Any],
    components: Sequence[LoadedComponent],
    sampled: MemoryPeaks,
    *,
    samples: int,
    rate_hz: float | None,
) -> list[StageRecord]:
    """A stage that ended well, and the components of a load as records of their own.

    ``common`` is what the parent knows (stage, kind, times), ``measured`` what the worker measured. Of each memory
    number the larger counts: a peak between two samples is seen by the worker, one of another library by the samples.
    """
    peaks = merge_peaks([MemoryPeaks(**{name: measured[name] for name in MemoryPeaks.model_fields}), sampled])
    whole = StageRecord(
        **common,
        **{**measured, **peaks.model_dump()},
        status=StageStatus.OK,
        bytes_read=sum(part.bytes_read for part in components) if components else None,
        samples=samples,
        achieved_rate_hz=rate_hz,
    )
    parts = [
        StageRecord(
            stage=whole.stage,
            kind=whole.kind,
            repeat=whole.repeat,
            attempt=whole.attempt,
            status=StageStatus.OK,
            **part.model_dump(),
        )
        for part in components
    ]
    return [whole, *parts]


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _all(values: list[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return all(known) if known else None


def _any(values: list[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return any(known) if known else None
