"""The VAE's two stages: the start image to its latents, latents to frames; both may go in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline
from numpy.typing import NDArray

from wan22core.errors import NonFiniteOutputError
from wan22core.model.images import start_image
from wan22core.model.outputs import to_uint8
from wan22core.model.tiled_decode import decode_in_tiles
from wan22core.records import Tile
from wan22core.specs import Workload


@contextmanager
def tiled(vae: Any, tile: Tile | None, *, patch: int = 1) -> Iterator[None]:
    """Coding in tiles within the block; None codes whole frames. ``patch`` pixels are one of the VAE's own."""
    if tile is None:
        yield
        return
    vae.enable_tiling(
        tile_sample_min_height=tile.height // patch,
        tile_sample_min_width=tile.width // patch,
        tile_sample_stride_height=tile.stride_height // patch,
        tile_sample_stride_width=tile.stride_width // patch,
    )
    try:
        yield
    finally:
        vae.disable_tiling()


def encode_start_image(
    pipeline: Any, workload: Workload, generator: torch.Generator, tile: Tile | None
) -> tuple[torch.Tensor, ...]:
    """Start noise, encoded first frame and its mask, as the stock pipeline prepares them.

    The VAE encodes in fp32 whatever it decodes in: in bf16 the first frame is visibly off. Its encoder counts a tile in
    patches of two pixels, its decoder in pixels.
    """
    vae = pipeline.vae
    image = pipeline.video_processor.preprocess(start_image(workload), height=workload.height, width=workload.width).to(
        vae.device, dtype=torch.float32
    )
    kept = vae.dtype
    vae.to(torch.float32)
    try:
        with tiled(vae, tile, patch=vae.config.patch_size or 1):
            prepared = WanImageToVideoPipeline.prepare_latents(
                pipeline,
                image,
                1,
                vae.config.z_dim,
                workload.height,
                workload.width,
                workload.frames,
                torch.float32,
                vae.device,
                generator,
            )
    finally:
        vae.to(kept)
    return tuple(prepared)


def decode_frames(
    pipeline: Any, latents: torch.Tensor, tile: Tile | None, *, stock_tiles: bool = False
) -> NDArray[np.uint8]:
    """Frames (frames, height, width, 3), as the stock pipelines decode; tiles are our own, or diffusers' where asked.

    Raises ``NonFiniteOutputError``.
    """
    vae = pipeline.vae
    latents = latents.to(vae.device, vae.dtype)
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
    scale = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
    latents = latents / scale + mean
    if tile is None or stock_tiles:
        with tiled(vae, tile):
            video = vae.decode(latents, return_dict=False)[0]
    else:
        video = decode_in_tiles(vae, latents, tile)
    if not bool(torch.isfinite(video).all()):
        raise NonFiniteOutputError(
            "The decoded video holds NaN or infinity.", next_action="Check the VAE's files and precision."
        )
    return to_uint8(pipeline.video_processor.postprocess_video(video.clamp_(-1, 1), output_type="np")[0])
