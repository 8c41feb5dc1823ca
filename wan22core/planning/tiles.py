"""The tiles that a frame can be coded in, and the largest that a room holds."""

from __future__ import annotations

from wan22core.planning.calibration import memory_factors
from wan22core.planning.configuration import DEFAULT_TILE, Configuration, TileShape
from wan22core.planning.memory_model import coder_mib
from wan22core.specs import Recipe, Tiling, Workload

SAFETY = 1.03
"""A predicted figure may be this much too low: it is added before anything is said to fit."""
_OVERLAP = 96
"""Pixels that neighbours share; they meet in the middle. Six convolutions of the decoder's first level reach 96 pixels
far, and the pixels at that distance weigh next to nothing."""
_SMALLEST_STRIDE = 64
_STEP = 16
"""A latent is 16 pixels wide."""
_LARGE = 384 * 384
"""Pixels beyond which a larger tile saves about a second of a 2-second 720p decode (4.2 s against 3.2 s on an H100):
no more than the transformer takes on its way back to the device for the next video."""


def tiles(workload: Workload) -> list[TileShape | None]:
    """What a frame can be coded in, largest first: whole (None), then split evenly, always across the longer side.

    Even parts leave no sliver at an edge, and a side that is not split has no overlap.
    """
    found: list[TileShape | None] = [None]
    rows = columns = 1
    height, width = workload.height, workload.width
    while True:
        rows, columns = (rows, columns + 1) if width >= height else (rows + 1, columns)
        strides = _part(workload.height, rows), _part(workload.width, columns)
        if min(strides) < _SMALLEST_STRIDE:
            return found
        height, width = (
            stride + _OVERLAP * (parts > 1) for stride, parts in zip(strides, (rows, columns), strict=True)
        )
        if height * width < pixels(found[-1], workload):
            found.append((height, width, *strides))


def choose_tile(
    recipe: Recipe, workload: Workload, room_mib: float | None, *, image: bool = False, halvings: int = 0
) -> TileShape | None:
    """The tiles that a recipe codes frames in where ``room_mib`` is left on the device; None codes whole frames.

    ``image`` asks for the start image's encoding. ``halvings`` is how often less turned out to fit than the model
    said: each takes a tile of half the pixels at most. Where nothing fits the smallest tile is tried.
    """
    if recipe.vae_tiling is not Tiling.AUTO:
        doubled = 2 if image else 1  # the VAE's encoder counts a tile in patches of two pixels
        whole = recipe.vae_tiling is Tiling.OFF
        return None if whole else tuple(doubled * side for side in DEFAULT_TILE)  # type: ignore[return-value]
    ladder = tiles(workload)
    fitting = (tile for tile in ladder if room_mib is None or needed_mib(recipe, workload, tile, image) <= room_mib)
    chosen = next(fitting, ladder[-1])
    for _ in range(halvings):
        half = pixels(chosen, workload) / 2
        chosen = next((tile for tile in ladder if pixels(tile, workload) <= half), ladder[-1])
    return chosen


def is_large(tile: TileShape | None) -> bool:
    """Whether a larger tile is not worth sending the transformer away."""
    return tile is None or tile[0] * tile[1] >= _LARGE


def needed_mib(recipe: Recipe, workload: Workload, tile: TileShape | None, image: bool) -> float:
    """What the allocator reserves for coding frames in ``tile``, beside the weights, MiB."""
    factors = memory_factors()
    configuration = Configuration.of(recipe).model_copy(update={"tile": tile})
    stage = "encode_image" if image else "decode"
    return coder_mib(configuration, workload, stage, factors) * (1 + factors.decoder_slack) * SAFETY


def pixels(tile: TileShape | None, workload: Workload) -> int:
    """Of one tile, or of a whole frame."""
    return workload.height * workload.width if tile is None else tile[0] * tile[1]


def _part(side: int, parts: int) -> int:
    """One of ``parts`` equal parts, in whole latents; the last one may be smaller."""
    return -(-side // (parts * _STEP)) * _STEP
