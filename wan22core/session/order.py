"""The stages of one generation in their order, and the deadline of each: pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wan22core.planning.quantization import QuantizationPlan
from wan22core.records import RepeatKind, Stage
from wan22core.session.attempts import MAX_HALVINGS
from wan22core.session.folder import RunFolder
from wan22core.specs import BenchmarkSpec, Deadlines, Precision

StageCall = tuple[Stage, dict[str, Any]]


def generations(spec: BenchmarkSpec) -> list[tuple[RepeatKind, int]]:
    """The videos of a run: the warm-ups, then what is measured, each counted from 0."""
    warmups = [(RepeatKind.WARMUP, number) for number in range(spec.warmups)]
    return warmups + [(RepeatKind.MEASURED, number) for number in range(spec.repeats)]


def generation_stages(
    spec: BenchmarkSpec, folder: RunFolder, kind: RepeatKind, done: Collection[Stage] = (), halvings: int = 0
) -> list[StageCall]:
    """What one video still takes, with the arguments of each stage; of a user's own functions only the whole is seen.

    Where the latents are ``done`` and saved, they are decoded from their file. ``halvings`` are those of the tiles.
    """
    keeps = {"frames": str(folder.frames)} if spec.keep_frames and kind is RepeatKind.MEASURED else {}
    write: StageCall = (Stage.WRITE, {"path": str(folder.video(kind)), **keeps})
    if spec.opaque is not None:
        return [(Stage.GENERATE, {}), write]
    encode = [Stage.ENCODE, Stage.ENCODE_IMAGE] if spec.workload.image_to_video else [Stage.ENCODE]
    decode: dict[str, Any] = {"latents": str(folder.latents)} if Stage.SAVE_LATENTS in done else {}
    calls: list[StageCall] = [
        *((stage, {}) for stage in (*encode, Stage.DENOISE)),
        (Stage.SAVE_LATENTS, {"path": str(folder.latents)}),
        (Stage.DECODE, decode | ({"halvings": halvings} if halvings else {})),
        write,
    ]
    return [call for call in calls if call[0] not in done]


def deadline_s(deadlines: Deadlines, stage: Stage) -> float:
    """Seconds after which a stage of a generation is killed."""
    by_stage = {
        Stage.ENCODE: deadlines.encode_s,
        Stage.ENCODE_IMAGE: deadlines.encode_image_s,
        Stage.DENOISE: deadlines.denoise_s,
        Stage.DECODE: deadlines.decode_s,
        Stage.GENERATE: deadlines.denoise_s,
    }
    return by_stage.get(stage, deadlines.write_s)


def load_limit_s(spec: BenchmarkSpec, plan: QuantizationPlan) -> float:
    """Longest that loading can take by the worker's own deadlines: every attempt in a fresh worker."""
    deadlines = spec.deadlines
    each_s = [deadlines.start_s + deadlines.load_s + attempt.deadline_s for attempt in plan.attempts]
    return sum(each_s) + len(spec.recipe.placement_fallbacks) * max(each_s)


def generation_limit_s(spec: BenchmarkSpec, plan: QuantizationPlan) -> float:
    """Longest that one video can take by those deadlines: a worker that is brought back first, every placement."""
    stages = (Stage.ENCODE, Stage.ENCODE_IMAGE, Stage.DENOISE, Stage.SAVE_LATENTS, Stage.DECODE, Stage.WRITE)
    video_s = sum(deadline_s(spec.deadlines, stage) for stage in stages) + MAX_HALVINGS * spec.deadlines.decode_s
    return load_limit_s(spec, plan) + (1 + len(spec.recipe.placement_fallbacks)) * video_s


def with_precision(spec: BenchmarkSpec, precision: Precision) -> BenchmarkSpec:
    """The same benchmark with another precision of the transformer."""
    recipe = spec.recipe.model_copy(update={"transformer_precision": precision})
    return spec.model_copy(update={"recipe": recipe})
