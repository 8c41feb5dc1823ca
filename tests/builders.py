"""Synthetic records, as a run of ``tiny`` on a CPU or of ``ti2v-5b`` on a GPU would leave them; numbers are made up."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from wan22core.hardware.detect import detect
from wan22core.quality.policy import run_state, summary
from wan22core.quality.tables import build_tables
from wan22core.quality.verdict import judge
from wan22core.recipes import recipe
from wan22core.records import (
    Judgement,
    Labels,
    MemoryReading,
    RepeatKind,
    RepeatRow,
    RunError,
    RunRecord,
    Sample,
    Stage,
    StageRecord,
    StageStatus,
    Telemetry,
    environment_key,
    series_key,
)
from wan22core.specs import WORKLOADS, BenchmarkSpec

INTERVAL_S = 0.1


def make_spec(*, cuda: bool = False) -> BenchmarkSpec:
    workload = WORKLOADS["2s-720p" if cuda else "smoke"]
    return BenchmarkSpec(workload=workload, recipe=recipe("reference"), repeats=2, warmups=1)


def make_labels(*, cuda: bool = False, **changes: Any) -> Labels:
    values: dict[str, Any] = {
        "host": "test",
        "operating_system": "Linux",
        "device": "cuda:0" if cuda else "cpu",
        "device_name": "Synthetic GPU" if cuda else "Synthetic CPU",
        "device_uuid": "GPU-0" if cuda else None,
        "architecture": "ti2v-5b" if cuda else "tiny",
        "weights_source": "random",
        "weights_id": "0123456789abcdef",
        "workload": "2s-720p" if cuda else "smoke",
        "recipe": "reference",
        "recipe_class": "lossless",
        "vram_limit_mib": None,
        "precision_requested": "bf16",
        "precision_actual": "bfloat16",
        "placement": "resident",
        "attention_backend": "native",
        "page_cache": "unknown",
        "compile_cache": "none",
        "attempts": 1,
        "resumed": False,
        "fallback": False,
        "emulated": False,
        "foreign_process": None,
    }
    return Labels(**{**values, **changes})


def make_stages(*, cuda: bool = False) -> list[StageRecord]:
    """A load, then one warm-up and two repeats of four stages, two seconds each, one after the other."""
    order = [(Stage.START, RepeatKind.SETUP, 0), (Stage.LOAD, RepeatKind.SETUP, 0)]
    for kind, repeat in ((RepeatKind.WARMUP, 0), (RepeatKind.MEASURED, 0), (RepeatKind.MEASURED, 1)):
        order += [(stage, kind, repeat) for stage in (Stage.ENCODE, Stage.DENOISE, Stage.DECODE, Stage.WRITE)]
    memory: dict[str, Any] = {"peak_rss_mib": 900.0}
    if cuda:
        memory |= {
            "peak_allocated_mib": 9000.0,
            "peak_reserved_mib": 9500.0,
            "peak_process_mib": 10_000.0,
            "peak_device_mib": 10_500.0,
            "memory_end": MemoryReading(allocated_mib=8000, reserved_mib=9500, process_mib=10_000, device_mib=10_500),
        }
    return [
        StageRecord(
            **memory,
            stage=stage,
            kind=kind,
            repeat=repeat,
            status=StageStatus.OK,
            wall_s=1.9,
            started_s=2.0 * number,
            ended_s=2.0 * number + 1.95,
            achieved_rate_hz=10.0,
            samples=19,
        )
        for number, (stage, kind, repeat) in enumerate(order)
    ]


def make_repeats(*, cuda: bool = False) -> list[RepeatRow]:
    frames = make_spec(cuda=cuda).workload.frames
    memory: dict[str, Any] = {"peak_rss_mib": 900.0}
    if cuda:
        memory |= {
            "peak_allocated_mib": 9000.0,
            "peak_reserved_mib": 9500.0,
            "peak_process_mib": 10_000.0,
            "peak_device_mib": 10_500.0,
        }
    return [
        RepeatRow(
            **memory,
            kind=kind,
            repeat=repeat,
            load_s=1.9,
            generation_s=7.5 + repeat,
            start_to_video_s=None,
            step_median_s=0.1,
            generation_fps=frames / (7.5 + repeat),
            memory_efficiency=0.7 if cuda else None,
            frames_expected=frames,
            frames_produced=frames,
            output_finite=True,
            output_constant=False,
            achieved_rate_hz=10.0,
        )
        for kind, repeat in ((RepeatKind.WARMUP, 0), (RepeatKind.MEASURED, 0), (RepeatKind.MEASURED, 1))
    ]


def make_samples() -> list[Sample]:
    return [Sample(t_s=number / 10, rss_mib=500.0 + number, cpu_percent=150.0) for number in range(280)]


@cache
def _judgement(cuda: bool, error: RunError | None) -> Judgement:
    """The same records are judged alike, half a second each time."""
    labels = make_labels(cuda=cuda)
    tables = build_tables("r1", labels, make_repeats(cuda=cuda), make_stages(cuda=cuda), make_samples())
    return judge(tables, make_spec(cuda=cuda), labels, interval_s=INTERVAL_S, error=error).judgement


def make_run_record(*, cuda: bool = False, error: RunError | None = None, **changes: Any) -> RunRecord:
    """A judged run; ``changes`` replace fields of the record."""
    spec, labels = make_spec(cuda=cuda), make_labels(cuda=cuda)
    repeats, stages = make_repeats(cuda=cuda), make_stages(cuda=cuda)
    judgement = _judgement(cuda, error)
    state = run_state(judgement, error)
    environment: dict[str, str | None] = {"torch": "2.13.0", "driver": None}
    values: dict[str, Any] = {
        "run_id": "20261124T100000-abcdef",
        "created_at": datetime(2026, 11, 24, 10, tzinfo=UTC),
        "run_dir": "/runs/20261124T100000-abcdef",
        "command": "wan22 benchmark",
        "verdict": state,
        "summary": summary(state, judgement, labels, error),
        "spec": spec,
        "labels": labels,
        "series_key": series_key(labels),
        "environment_key": environment_key(environment),
        "environment": environment,
        "hardware": detect(Path("/")),
        "integrity": judgement.integrity,
        "targets": judgement.targets,
        "smoke_limits": judgement.smoke_limits,
        "repeats": repeats,
        "stages": stages,
        "census": [],
        "telemetry": Telemetry(
            requested_interval_s=INTERVAL_S,
            achieved_rate_hz=10.0,
            samples=280,
            missed=0,
            energy_j=None,
            energy_source=None,
            reasons={"gpu": "the run uses no GPU"},
        ),
        "error": error,
        "files": {},
    }
    return RunRecord(**{**values, **changes})
