"""Two finished runs of one seed: whether they may be held against each other, and how far their outputs lie apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wan22core.errors import MissingOutputError, UserInputError
from wan22core.quality.similarity import judge_similarity
from wan22core.records import FrameSimilarity, LatentSimilarity, Progress, RunRecord, SimilarityRecord
from wan22core.report.document import load_run
from wan22core.session.folder import RunFolder
from wan22core.worker.client import run_job

_DEADLINE_S = 3600.0


def compare_outputs(
    folder_a: Path, folder_b: Path, log_path: Path, on_progress: Callable[[Progress], None] | None = None
) -> SimilarityRecord:
    """The outputs of the run in ``folder_b`` against those of the yardstick in ``folder_a``, measured in a child.

    Raises ``UserInputError`` for runs that should not look alike, or that left no latents; ``MissingOutputError`` for
    files that hold no such thing.
    """
    a, b = load_run(folder_a), load_run(folder_b)
    if differing := differences(a, b):
        raise UserInputError(
            f"The runs {a.run_id} and {b.run_id} were asked for different videos: {'; '.join(differing)}.",
            next_action="Give two runs that differ in their recipe only.",
        )
    sides = {"a": RunFolder(a.run_id, folder_a), "b": RunFolder(b.run_id, folder_b)}
    for side in sides.values():
        if not side.latents.is_file():
            raise UserInputError(
                f"The run {side.run_id} left no latents in {side.path}.", next_action="Give a run that denoised."
            )
    without = [side.run_id for side in sides.values() if not side.frames.is_file()]
    files = {f"latents_{name}": str(side.latents) for name, side in sides.items()}
    if not without:
        files |= {f"frames_{name}": str(side.frames) for name, side in sides.items()}
    found = run_job(
        "wan22core.model.similarity:measure", files, deadline_s=_DEADLINE_S, log_path=log_path, on_progress=on_progress
    )
    return judge_similarity(
        a,
        b,
        LatentSimilarity.model_validate(found["latents"]),
        None if without else FrameSimilarity.model_validate(found["frames"]),
        f"no frames were kept by {' and '.join(without)}: measure with --keep-frames" if without else None,
    )


def differences(a: RunRecord, b: RunRecord) -> list[str]:
    """What keeps the outputs from being alike, each with both values: all but the recipe must be the same."""
    ours, theirs = (_what_makes_the_video(record) for record in (a, b))
    return [f"{name} is {ours[name]} in A and {theirs[name]} in B" for name in ours if ours[name] != theirs[name]]


def _what_makes_the_video(record: RunRecord) -> dict[str, str]:
    workload = record.spec.workload.model_dump(mode="json", exclude={"name", "fps"})
    made_by = {
        "weights": record.labels.weights_id,
        "architecture": record.labels.architecture,
        # the start noise is drawn on the device: each kind has a generator of its own
        "kind of device": record.labels.device.partition(":")[0],
    }
    return {name: str(value) for name, value in (made_by | workload).items()}


def compare_pair(
    a: RunRecord | None,
    b: RunRecord | None,
    log_path: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[SimilarityRecord | None, str | None]:
    """The same of two runs that were measured as a pair; None with the reason where one of them has nothing to show."""
    if a is None or b is None:
        return None, "one of the two left no run"
    try:
        return compare_outputs(Path(a.run_dir), Path(b.run_dir), log_path, on_progress), None
    except (UserInputError, MissingOutputError) as error:
        return None, error.message
