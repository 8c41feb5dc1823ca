"""Tiles: they cover the frame, get smaller step by step, and the largest that fits is taken."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from wan22core.planning.configuration import DEFAULT_TILE
from wan22core.planning.tiles import choose_tile, is_large, needed_mib, pixels, tiles
from wan22core.recipes import recipe
from wan22core.specs import WORKLOADS, Tiling, Workload

TARGET, SAFE = WORKLOADS["2s-720p"], recipe("safe_12g")
SIDES = st.integers(1, 80).map(lambda number: 32 * number)


@given(SIDES, SIDES)
@settings(max_examples=200, deadline=None)
def test_tiles_cover_a_frame_of_any_shape(height: int, width: int) -> None:
    """Strides in whole latents, one overlap for all, no sliver at an edge, each smaller than the last."""
    workload = Workload(width=width, height=height, frames=5)
    ladder = tiles(workload)
    assert ladder[0] is None
    areas = [pixels(tile, workload) for tile in ladder]
    assert all(larger > smaller for larger, smaller in pairwise(areas))
    overlaps = set()
    for tile in ladder[1:]:
        assert tile is not None
        for side, length, stride in zip((height, width), tile[:2], tile[2:], strict=True):
            starts = range(0, side, stride)
            assert starts[-1] + length >= side
            assert stride % 16 == 0
            if len(starts) > 1:
                overlaps.add(length - stride)
    assert len(overlaps) <= 1


@given(st.floats(0, 40_000), st.floats(1, 3))
@settings(max_examples=100, deadline=None)
def test_more_room_never_makes_a_tile_smaller(room_mib: float, factor: float) -> None:
    """What is chosen fits by the memory model, unless nothing does."""
    less, more = (choose_tile(SAFE, TARGET, room) for room in (room_mib, room_mib * factor))
    assert pixels(less, TARGET) <= pixels(more, TARGET)
    assert less == tiles(TARGET)[-1] or needed_mib(SAFE, TARGET, less, image=False) <= room_mib


def test_each_halving_takes_half_the_pixels_at_most() -> None:
    """From what fits by the model; the smallest ends it."""
    areas = [pixels(choose_tile(SAFE, TARGET, 8_000.0, halvings=number), TARGET) for number in range(4)]
    assert all(smaller <= larger / 2 for larger, smaller in pairwise(areas))
    small = Workload(width=64, height=64, frames=5)
    assert choose_tile(SAFE, small, 0.0, halvings=3) is None


def test_a_start_image_takes_less_than_a_decode() -> None:
    """One frame instead of a chunk of four, in fp32; where memory is not known frames are whole."""
    assert needed_mib(SAFE, TARGET, None, image=True) < needed_mib(SAFE, TARGET, None, image=False)
    assert choose_tile(SAFE, TARGET, None) is None


def test_other_recipes_have_no_choice() -> None:
    """The library's tiles, which its encoder counts in patches of two pixels, or none, whatever the room."""
    off = recipe("reference")
    default = off.model_copy(update={"vae_tiling": Tiling.DEFAULT})
    assert choose_tile(off, TARGET, 0.0) is None
    assert choose_tile(default, TARGET, 1e6) == DEFAULT_TILE
    assert choose_tile(default, TARGET, 1e6, image=True) == (512, 512, 384, 384)


def test_a_transformer_leaves_for_small_tiles_only() -> None:
    """Beyond 384 x 384 pixels a larger tile is not worth its way back."""
    assert [is_large(tile) for tile in (None, (416, 384, 352, 320), (304, 320, 240, 256))] == [True, True, False]
