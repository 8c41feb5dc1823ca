"""A decode in tiles shows nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wan22core.model.engine import WanEngine
from wan22core.model.tiled_decode import _spans
from wan22core.planning.tiles import tiles
from wan22core.recipes import recipe
from wan22core.records import Tile
from wan22core.specs import BenchmarkSpec, Tiling, Workload

WIDE = Workload(name="wide", width=256, height=192, frames=5, steps=1)
DEFAULT = (128, 128, 96, 96)


def tile_of(shape: tuple[int, ...]) -> Tile:
    return Tile(**dict(zip(Tile.model_fields, shape, strict=True)))


def decoder(folder: Path, tiling: Tiling = Tiling.AUTO) -> WanEngine:
    asked = recipe("reference").model_copy(update={"vae_tiling": tiling})
    engine = WanEngine(BenchmarkSpec(workload=WIDE, recipe=asked), folder, "cpu")
    engine.load(lambda _: None)
    return engine


def noise() -> torch.Tensor:
    return torch.randn(1, 48, *WIDE.latent_shape, generator=torch.Generator().manual_seed(0))


def psnr_db(a: NDArray[Any], b: NDArray[Any]) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path) -> tuple[WanEngine, NDArray[Any]]:
    """An engine, and the frames that it decodes whole."""
    engine = decoder(tiny_checkpoint)
    return engine, engine.decode(noise())


@pytest.mark.parametrize("shape", [tiles(WIDE)[1], tiles(WIDE)[-1]], ids=["one way", "both ways"])
def test_a_decode_in_tiles_is_the_whole_one(whole: tuple[WanEngine, NDArray[Any]], shape: tuple[int, ...]) -> None:
    """At 40 dB and more, though the weights are random and the latents noise; and the next decode is whole again."""
    engine, expected = whole
    found = engine.decode(noise(), tile_of(shape))
    assert psnr_db(expected, found) >= 40


def test_one_tile_over_the_whole_frame_changes_no_bit(whole: tuple[WanEngine, NDArray[Any]]) -> None:
    engine, expected = whole
    assert np.array_equal(engine.decode(noise(), tile_of((192, 256, 192, 256))), expected)
    assert np.array_equal(engine.decode(noise()), expected)


def test_the_default_is_the_library_s_own(tiny_checkpoint: Path, whole: tuple[WanEngine, NDArray[Any]]) -> None:
    """Whose tiles go through the whole decoder: the attention of each sees one tile, and the result is another."""
    _, expected = whole
    stock = decoder(tiny_checkpoint, Tiling.DEFAULT).decode(noise(), tile_of(DEFAULT))
    assert 10 < psnr_db(expected, stock) < 40


@given(st.integers(1, 120), st.integers(1, 40), st.integers(0, 8))
def test_spans_keep_each_latent_once(side: int, stride: int, overlap: int) -> None:
    """And what is kept of a tile was computed in it, half the overlap off its cuts."""
    spans = _spans(side, stride + overlap, stride)
    kept = [latent for span in spans for latent in range(span.first, span.last)]
    assert kept == list(range(side))
    for span in spans:
        assert 0 <= span.start <= span.first < span.last <= span.end <= side
        assert span.start == 0 or span.first - span.start == overlap // 2
        assert span.end == side or span.end - span.last >= overlap // 2
