"""One measurement: a recipe or a baseline in a fresh process, by the same code for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.against_stock.baselines import spec_of
from benchmarks.against_stock.records import Asked, Measured
from wan22core.records import RepeatKind, Stage, StageRecord, StageStatus
from wan22core.session.assemble import repeat_rows
from wan22core.session.cold import cool_weights
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.labels import environment, labels_of
from wan22core.session.order import generations
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.statistics import summarize

TOLERANCE_MIB = 64


def order(recipes: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """(round, recipe), every other round backwards."""
    return [(number, name) for number in range(rounds) for name in (recipes if number % 2 == 0 else recipes[::-1])]


def expected_s(name: str, done: Sequence[Measured]) -> float:
    """The longest that this recipe took so far, or any where it has not run yet."""
    own = [each.wall_s for each in done if each.recipe == name]
    return max(own or [each.wall_s for each in done])


def made_cold(asked: Asked, name: str) -> str | None:
    """Empties the page cache of the checkpoint's files: why it may hold some still, None where it was seen not to."""
    settings = Settings()
    return cool_weights(spec_of(asked, name), settings, settings.logs_path / "gpu.log")


def measure(asked: Asked, name: str, round_: int) -> Measured:
    """One recipe in a fresh process."""
    began, settings, spec = time.monotonic(), Settings(), spec_of(asked, name)
    folder = new_run_folder(settings.runs_path, new_run_id())
    recording = Recording.new(folder, spec, "python benchmarks/gpu.py", interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        hardware = session.detect_hardware()
        session.prepare_weights()
        session.set_up_quantization()
        session.load_model()
        for kind, repeat in generations(spec):
            session.generate(kind, repeat)
        session.finish_measuring()
        gpu = hardware.gpu_of(session.device)
        return Measured(
            recipe=name,
            round=round_,
            wall_s=time.monotonic() - began,
            run_dir=str(folder.path),
            labels=labels_of(session),
            environment=environment(session),
            rows=repeat_rows(spec, session.stages, gpu.vram_total_mib.value if gpu else None),
            stages_s=stages_s(session.stages),
            load_bytes=next((each.bytes_read for each in session.stages if each.stage is Stage.LOAD), None),
            out_of_order=[stage.stage.value for stage in session.stages if not in_order(stage)],
            error=None if session.error is None else f"{session.error.message} {session.error.next}",
        )


def stages_s(stages: Sequence[StageRecord]) -> dict[str, float]:
    """Median seconds of each whole stage that ended well, warm-ups left out."""
    counted = [
        each
        for each in stages
        if each.component is None and each.status is StageStatus.OK and each.kind is not RepeatKind.WARMUP
    ]
    found: dict[str, float] = {}
    for stage in Stage:
        median = summarize([each.wall_s for each in counted if each.stage is stage]).median
        if median is not None:
            found[stage.value] = median
    return found


def in_order(stage: StageRecord) -> bool:
    """allocated <= reserved <= process <= device of the readings that are there, taken at one moment."""
    end = stage.memory_end
    present = [x for x in (end.allocated_mib, end.reserved_mib, end.process_mib, end.device_mib) if x is not None]
    return all(lower <= upper + TOLERANCE_MIB for lower, upper in pairwise(present))
