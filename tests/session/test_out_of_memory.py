"""Device memory that runs out, in real children: smaller tiles, then the next placement, never another precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.session.test_session import run, run_in
from wan22core.planning.quantization import plan_quantization
from wan22core.recipes import recipe
from wan22core.records import RepeatKind, RunRecord, RunState, Stage, StageRecord, StageStatus
from wan22core.session.assemble import repeat_rows
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.order import generation_limit_s, load_limit_s
from wan22core.session.recording import Recording
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec, Deadlines, Placement, Precision, Recipe, Tiling, Weights, Workload

TILES = "tests.session.limited_tiles:LimitedTiles"
PLACEMENTS = "tests.session.limited_placements:LimitedPlacements"
OK, FAILED = StageStatus.OK, StageStatus.FAILED
EVERY = recipe("reference").model_copy(
    update={"placement_fallbacks": (Placement.ENCODE_THEN_FREE, Placement.BLOCK_STREAM)}
)
SQUARE = Workload(name="square", width=256, height=256, frames=1, steps=1)
SMALL = Workload(name="small", width=64, height=64, frames=5, steps=2)


def spec_of(engine: str, prompt: str, asked: Recipe, workload: Workload, repeats: int = 1) -> BenchmarkSpec:
    workload = workload.model_copy(update={"prompt": prompt})
    return BenchmarkSpec(workload=workload, recipe=asked, engine=engine, device="cpu", repeats=repeats, warmups=0)


def attempts(record: RunRecord, stage: Stage) -> list[tuple[StageStatus, int]]:
    found = [each for each in record.stages if each.stage is stage and each.component is None]
    return [(each.status, each.attempt) for each in found]


def test_a_decode_without_room_is_tried_again_in_smaller_tiles(tiny_checkpoint: Path) -> None:
    """From the saved latents, in the same worker; the next video begins with what fitted. Rows and labels say so."""
    limit = 26_000
    asked = recipe("low_8g").model_copy(update={"compiled": False})
    record = run(spec_of(TILES, str(limit), asked, SQUARE, repeats=2), tiny_checkpoint)
    assert (record.error, record.integrity.failed) == (None, [])
    assert attempts(record, Stage.DECODE) == [(FAILED, 1), (FAILED, 2), (OK, 3), (OK, 1)]
    assert attempts(record, Stage.DENOISE) == [(OK, 1), (OK, 1)]
    failed = [each.error_code for each in record.stages if each.status is FAILED]
    assert failed == ["CUDA_OUT_OF_MEMORY"] * 2
    used = [each.tile for each in record.stages if each.stage is Stage.DECODE and each.tile is not None]
    assert used == [used[0]] * 2
    assert used[0].height * used[0].width <= limit
    assert (record.labels.attempts, record.labels.fallback, record.labels.comparable) == (3, False, False)
    assert [row.frames_produced for row in record.repeats] == [1, 1]
    assert record.labels.placement == "block_stream"


def test_a_recipe_without_a_choice_of_tiles_is_broken_by_it(tiny_checkpoint: Path) -> None:
    """Running out is the yardstick's result."""
    record = run(spec_of(TILES, "26000", recipe("reference"), SQUARE), tiny_checkpoint)
    assert (record.verdict, record.labels.attempts) == (RunState.BROKEN, 1)
    assert record.error is not None
    assert (record.error.code, record.error.stage) == ("CUDA_OUT_OF_MEMORY", Stage.DECODE)


@pytest.mark.parametrize(
    ("stage", "fits", "starts"),
    [
        (Stage.QUANTIZE, "encode_then_free,block_stream", 2),
        (Stage.DENOISE, "block_stream", 3),
        (Stage.DECODE, "block_stream", 3),
    ],
)
def test_the_next_placement_goes_on(tiny_checkpoint: Path, stage: Stage, fits: str, starts: int) -> None:
    """In a fresh worker, the precision kept; a video whose latents are saved is decoded from them."""
    record = run(spec_of(PLACEMENTS, f"{stage.value}:{fits}", EVERY, SMALL), tiny_checkpoint)
    assert (record.error, record.integrity.failed) == (None, [])
    assert len(attempts(record, Stage.START)) == starts
    assert [status for status, _ in attempts(record, stage)] == [FAILED] * (starts - 1) + [OK]
    assert len(attempts(record, Stage.ENCODE)) == (starts if stage is Stage.DENOISE else 1)
    labels = record.labels
    assert (labels.placement, labels.fallback, labels.attempts) == (fits.split(",")[0], True, starts)
    (row,) = record.repeats
    assert row.frames_produced == 5
    assert row.generation_s is not None
    assert row.start_to_video_s is not None
    assert row.start_to_video_s > row.generation_s


def test_after_the_last_placement_the_run_is_broken(tiny_checkpoint: Path) -> None:
    """Each was tried once, and no precision instead."""
    asked = EVERY.model_copy(update={"fallbacks": (Precision.INT8,)})
    record = run(spec_of(PLACEMENTS, "denoise:none", asked, SMALL, repeats=2), tiny_checkpoint)
    assert (record.verdict, len(attempts(record, Stage.START))) == (RunState.BROKEN, 3)
    assert [status for status, _ in attempts(record, Stage.DENOISE)][:3] == [FAILED] * 3
    assert [row.generation_s for row in record.repeats] == [None, None]


def test_a_resumed_run_goes_on_in_the_placement_that_it_had_come_to(tiny_checkpoint: Path) -> None:
    """Its worker runs that one from the first video on: memory does not run out a second time."""
    fits = Placement.ENCODE_THEN_FREE.value
    spec = spec_of(PLACEMENTS, f"denoise:{fits}", EVERY, SMALL)
    spec = spec.model_copy(update={"weights": Weights(model=str(tiny_checkpoint))})
    folder = new_run_folder(Settings().runs_path, new_run_id())
    cut_off = Recording.new(folder, spec, "test", interval_s=0.1)
    out_of_memory = {"error_code": "CUDA_OUT_OF_MEMORY", "error": "CUDA out of memory."}
    cut_off.add(
        stage_of(Stage.START, 1.0, 0.0),
        stage_of(Stage.LOAD, 1.0, 2.0),
        stage_of(Stage.QUANTIZE, 1.0, 4.0),
        stage_of(Stage.DENOISE, None, 6.0, **out_of_memory),
        stage_of(Stage.START, 1.0, 8.0, repeat=1),
        stage_of(Stage.LOAD, 1.0, 10.0, repeat=1, attempt=2),
        stage_of(Stage.QUANTIZE, 1.0, 12.0, repeat=1, attempt=2),
    )
    cut_off.close()
    record = run_in(Recording.going_on(folder, interval_s=0.1))
    assert record.error is None
    assert attempts(record, Stage.DENOISE) == [(OK, 1)]
    assert (record.labels.placement, record.labels.resumed, record.labels.fallback) == (fits, True, True)


def stage_of(stage: Stage, wall_s: float | None, at_s: float, **more: Any) -> StageRecord:
    status = FAILED if wall_s is None else OK
    kind = RepeatKind.SETUP if stage in (Stage.START, Stage.LOAD, Stage.QUANTIZE) else RepeatKind.MEASURED
    times = {"started_s": at_s, "ended_s": at_s + 2.0, "wall_s": wall_s}
    return StageRecord(**{"stage": stage, "kind": kind, "repeat": 0, "status": status, **times, **more})


def test_every_second_spent_on_a_video_counts() -> None:
    """Failed attempts by the run's clock; parts that a stage brought are load as well, in the life that ended it."""
    stages = [
        stage_of(Stage.START, 1.5, 0.0),
        stage_of(Stage.LOAD, 1.5, 2.0),
        stage_of(Stage.ENCODE, 1.5, 4.0),
        stage_of(Stage.ENCODE, 0.75, 4.0, component="text_encoder"),
        stage_of(Stage.DENOISE, None, 6.0),
        stage_of(Stage.START, 1.25, 8.0, repeat=1),
        stage_of(Stage.LOAD, 1.0, 10.0, repeat=1),
        stage_of(Stage.ENCODE, 1.5, 12.0),
        stage_of(Stage.DENOISE, 1.75, 14.0),
        stage_of(Stage.WRITE, 0.5, 16.0),
    ]
    spec = spec_of(TILES, "0", EVERY, SQUARE)
    (row,) = repeat_rows(spec, stages, None)
    assert row.generation_s == 1.5 + 2.0 + 1.5 + 1.75 + 0.5
    assert row.load_s == 1.0 + 0.75
    assert row.start_to_video_s == 18.0 - 4.0
    (broken,) = repeat_rows(spec, stages[:5], None)
    assert broken.generation_s is None


def test_the_belts_are_longer_than_all_attempts() -> None:
    """Loads: each precision, and each placement after the first. Videos: each placement with its smaller tiles."""
    deadlines = Deadlines(start_s=1, load_s=10, quantize_s=100, decode_s=7)
    asked = EVERY.model_copy(update={"vae_tiling": Tiling.AUTO})
    spec = BenchmarkSpec(workload=SQUARE, recipe=asked, deadlines=deadlines)
    plan = plan_quantization(spec, 1.0)
    assert load_limit_s(spec, plan) == 111 + 2 * 111
    video_s = 600 + 600 + 7200 + 600 + 7 + 600 + 3 * 7
    assert generation_limit_s(spec, plan) == load_limit_s(spec, plan) + 3 * video_s
