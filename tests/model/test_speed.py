"""What makes a forward faster changes nothing, or next to nothing, and says what it did."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor

from tests.model.test_placement import SMALL, latents_of
from wan22core.errors import UserInputError
from wan22core.model.attention import _choice, _fastest, active_attention, set_attention
from wan22core.model.engine import WanEngine
from wan22core.recipes import recipe
from wan22core.records import CachedForwards, Compilation
from wan22core.specs import BenchmarkSpec, CacheMethod, Loader, Placement, Precision, StepCache, Workload

CPU = torch.device("cpu")


def loaded(folder: Path, workload: Workload = SMALL, **changes: Any) -> WanEngine:
    """The reference with these changes."""
    asked = recipe("reference").model_copy(update=changes)
    engine = WanEngine(BenchmarkSpec(workload=workload, recipe=asked), folder, "cpu")
    engine.load(lambda _: None)
    engine.quantize(asked.transformer_precision, lambda _: None)
    return engine


@pytest.mark.parametrize("image_to_video", [False, True], ids=["t2v", "i2v"])
def test_each_distinct_timestep_is_embedded_once(tiny_checkpoint: Path, embeddings: Any, image_to_video: bool) -> None:
    """One row goes through the embedder, or two, where the stock transformer has one a token; not a bit changes."""
    workload = SMALL.model_copy(update={"image_to_video": image_to_video, "steps": 2})
    rows: list[int] = []
    results = []
    for value in (False, True):
        engine = loaded(tiny_checkpoint, workload, distinct_timesteps=value)
        embedder = engine._pipeline.transformer.condition_embedder.time_embedder
        embedder.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[:-1].numel()))
        results.append(latents_of(engine, embeddings))
    forwards = 2 * workload.steps
    assert rows == [workload.tokens] * forwards + [1 + image_to_video] * forwards
    assert torch.equal(*results)


def compiled(engine: WanEngine) -> tuple[torch.Tensor, Compilation]:
    """Its latents, and what compiling took, as in a process that has not compiled anything yet."""
    torch._dynamo.reset()
    latents = latents_of(engine)
    done = engine.take_compiled()
    assert done is not None
    assert engine.take_compiled() is None
    return latents, done


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


def test_compiled_blocks_are_compiled_once_and_compute_the_same(tiny_checkpoint: Path) -> None:
    """Streamed blocks and blocks in place share the code, and a later process finds it on the disk.

    A step cache goes around it.

    Its roundings are other ones, because what is fused is not rounded in between. They take the result no farther from
    the one in fp32 than the uncompiled roundings do. Guidance would show five times the difference.
    """
    workload = SMALL.model_copy(update={"width": 96, "guidance": 1.0})  # a shape that no other test compiles
    found, first = compiled(loaded(tiny_checkpoint, workload, compiled=True))
    assert first.cache == "cold"
    plain = latents_of(loaded(tiny_checkpoint, workload))
    exact = latents_of(loaded(tiny_checkpoint, workload, transformer_precision=Precision.FP32))
    assert cosine(found, plain) >= 0.9999
    assert 1 - cosine(found, exact) <= 1.2 * (1 - cosine(plain, exact))
    streams = {"placement": Placement.BLOCK_STREAM, "loader": Loader.DIRECT}
    streamed, again = compiled(loaded(tiny_checkpoint, workload, compiled=True, **streams))
    assert torch.equal(streamed, found)
    assert again.cache == "warm"
    assert first.seconds is not None and again.seconds is not None
    steps = workload.model_copy(update={"steps": 3})
    only_the_first = StepCache(method=CacheMethod.FIRST_BLOCK, threshold=1e9)
    cached = loaded(tiny_checkpoint, steps, compiled=True, step_cache=only_the_first)
    latents_of(cached)
    assert cached.take_cached() == CachedForwards(forwards=3, cached=2)
    assert first.seconds > again.seconds > 0


def test_quantized_blocks_compile(tiny_checkpoint: Path) -> None:
    """int8 linears within; near to what they compute uncompiled."""
    workload = SMALL.model_copy(update={"guidance": 1.0})
    int8 = {"transformer_precision": Precision.INT8}
    plain = latents_of(loaded(tiny_checkpoint, workload, **int8))
    fused, done = compiled(loaded(tiny_checkpoint, workload, **int8, compiled=True))
    assert done.cache in ("cold", "warm")
    assert cosine(plain, fused) >= 0.9995


def test_without_a_compiler_the_blocks_run_as_they_are(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is told, the result is the one of a recipe that does not compile."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    monkeypatch.setattr(inductor.cpp, "cxx", ("/no/such/compiler",))
    caplog.set_level(logging.WARNING)
    latents, done = compiled(loaded(tiny_checkpoint, compiled=True))
    assert torch.equal(latents, latents_of(loaded(tiny_checkpoint)))
    assert (done.cache, done.seconds) == ("none", None)
    assert "/no/such/compiler" in str(done.reason)
    assert "could not be compiled" in caplog.text


def test_the_attention_that_is_measured_is_one_that_runs_here(tiny_checkpoint: Path) -> None:
    """What can't run on this device is left out, and the plain one is active again after ``auto`` on a CPU."""
    transformer = loaded(tiny_checkpoint)._pipeline.transformer
    try:
        chosen = _fastest(transformer, CPU, tokens=64)
        assert chosen in ("native", "_native_flash")
    finally:
        set_attention(transformer, "auto", CPU, tokens=64)
    assert active_attention() == "native"
    with pytest.raises(UserInputError, match="no attention backend 'fastest'"):
        set_attention(transformer, "fastest", CPU, tokens=64)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"native": 1.0, "_native_cudnn": 0.6, "flash": 0.7}, "_native_cudnn"),
        ({"native": 1.0, "_native_cudnn": 0.96}, "native"),
        ({"_native_cudnn": 0.96}, "_native_cudnn"),
        ({}, "native"),
    ],
)
def test_a_near_tie_is_the_plain_one(seconds: dict[str, float], expected: str) -> None:
    assert _choice(seconds) == expected
