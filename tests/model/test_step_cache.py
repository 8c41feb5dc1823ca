"""Step caches: what they leave out is counted, and nothing of one video reaches the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.test_placement import SMALL, latents_of
from tests.model.test_speed import loaded
from wan22core.model.engine import WanEngine
from wan22core.records import CachedForwards
from wan22core.specs import CacheMethod, StepCache, Workload

STEPS = 4
WORKLOAD = SMALL.model_copy(update={"steps": STEPS})
MAGNITUDE = StepCache(method=CacheMethod.MAGNITUDE, threshold=0.06)
ALL_BUT_THE_FIRST = StepCache(method=CacheMethod.FIRST_BLOCK, threshold=1e9)
NONE_AT_ALL = StepCache(method=CacheMethod.FIRST_BLOCK, threshold=1e-9)


def cached(checkpoint: Path, cache: StepCache, workload: Workload = WORKLOAD, **changes: Any) -> WanEngine:
    return loaded(checkpoint, workload, step_cache=cache, **changes)


@pytest.mark.parametrize("image_to_video", [False, True], ids=["t2v", "i2v"])
def test_what_is_left_out_is_what_was_said_beforehand(
    tiny_checkpoint: Path, embeddings: Any, image_to_video: bool
) -> None:
    """Of both forwards of a step, and the same for a second video, which equals the first."""
    workload = WORKLOAD.model_copy(update={"image_to_video": image_to_video})
    engine = cached(tiny_checkpoint, MAGNITUDE, workload)
    first = latents_of(engine, embeddings)
    left_out = MAGNITUDE.left_out(workload)
    assert left_out
    assert engine.take_cached() == CachedForwards(forwards=2 * STEPS, cached=2 * len(left_out))
    assert torch.equal(latents_of(engine, embeddings), first)


def test_a_first_block_decides_by_what_it_adds(tiny_checkpoint: Path, embeddings: Any) -> None:
    """A threshold that nothing is below leaves nothing out, and changes nothing; one that all is below all it can."""
    whole = cached(tiny_checkpoint, NONE_AT_ALL)
    assert torch.equal(latents_of(whole, embeddings), latents_of(loaded(tiny_checkpoint, WORKLOAD), embeddings))
    assert whole.take_cached() == CachedForwards(forwards=2 * STEPS, cached=0)
    short = cached(tiny_checkpoint, ALL_BUT_THE_FIRST)
    latents_of(short, embeddings)
    assert short.take_cached() == CachedForwards(forwards=2 * STEPS, cached=2 * (STEPS - 1))


def test_a_video_that_breaks_leaves_nothing_to_the_next(tiny_checkpoint: Path, embeddings: Any) -> None:
    engine = cached(tiny_checkpoint, ALL_BUT_THE_FIRST)
    first = latents_of(engine, embeddings)
    handle = engine._pipeline.transformer.blocks[0].register_forward_pre_hook(_after(3))
    with pytest.raises(RuntimeError, match="the fourth"):
        latents_of(engine, embeddings)
    handle.remove()
    assert torch.equal(latents_of(engine, embeddings), first)


def _after(calls: int) -> Any:
    seen = 0

    def hook(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > calls:
            raise RuntimeError("the fourth")

    return hook
