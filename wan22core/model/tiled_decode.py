"""The VAE's decode in tiles: what looks at the whole frame sees all of it, what looks around itself goes in tiles.

diffusers' tiled decode gives every tile to the whole decoder, whose middle has attention over all that it gets: a tile
sees less than the frame does, and neighbours disagree. Here the input convolution and the middle run once for the whole
frame, on latents (90 MiB of features for a 2-second 720p video, where one tile's upsampling takes gigabytes), and only
the upsampling, made of convolutions, goes in tiles. Away from a tile's cut its pixels are the whole frame's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

from wan22core.records import Tile

_Cache = list[Any]


class _Span(NamedTuple):
    """One tile along one side, in latents: what is computed, and what of it is kept."""

    start: int
    end: int
    first: int
    last: int


def decode_in_tiles(vae: Any, latents: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Frames (1, 3, frames, height, width) of latents (1, 48, ...), not clamped; of an overlap each tile has one half.

    ``vae`` is an ``AutoencoderKLWan``.
    """
    scale = vae.spatial_compression_ratio
    features = _features(vae, latents)
    height, width = latents.shape[-2:]
    frames = (latents.shape[2] - 1) * vae.config.scale_factor_temporal + 1
    video = latents.new_empty(1, 3, frames, height * scale, width * scale)
    for rows in _spans(height, tile.height // scale, tile.stride_height // scale):
        for columns in _spans(width, tile.width // scale, tile.stride_width // scale):
            _decode_one(vae, features, rows, columns, video)
    return video


def _spans(side: int, length: int, stride: int) -> list[_Span]:
    """Along a side of ``side`` latents; two neighbours meet in the middle of what they share."""
    half = (length - stride) // 2
    starts = [start for start in range(0, side, stride) if start == 0 or start + half < side]
    cuts = [0, *(start + half for start in starts[1:]), side]
    return [
        _Span(start, min(start + length, side), first, last)
        for start, first, last in zip(starts, cuts, cuts[1:], strict=False)
    ]


def _features(vae: Any, latents: torch.Tensor) -> list[torch.Tensor]:
    """What the middle of the decoder makes of each latent frame, (1, channels, 1, height, width)."""
    decoder, cache = vae.decoder, _cache(vae)
    found = []
    for frame in vae.post_quant_conv(latents).split(1, dim=2):
        index = [0]
        found.append(decoder.mid_block(_causal(decoder.conv_in, frame, cache, index), feat_cache=cache, feat_idx=index))
    return found


def _decode_one(vae: Any, features: list[torch.Tensor], rows: _Span, columns: _Span, video: torch.Tensor) -> None:
    """Upsamples one tile, frame after frame, and puts what is kept of it into the video."""
    decoder, cache, scale = vae.decoder, _cache(vae), vae.spatial_compression_ratio
    place = tuple(slice(span.first * scale, span.last * scale) for span in (rows, columns))
    inside = tuple(
        slice((span.first - span.start) * scale, (span.last - span.start) * scale) for span in (rows, columns)
    )
    done = 0
    for number, whole in enumerate(features):
        index = [0]
        x = whole[..., rows.start : rows.end, columns.start : columns.end]
        for block in decoder.up_blocks:
            x = block(x, feat_cache=cache, feat_idx=index, first_chunk=number == 0)
        x = _causal(decoder.conv_out, decoder.nonlinearity(decoder.norm_out(x)), cache, index)
        pixels = unpatchify(x, patch_size=vae.config.patch_size or 1)
        video[:, :, done : done + pixels.shape[2], *place] = pixels[..., *inside]
        done += pixels.shape[2]


def _causal(convolution: Any, x: torch.Tensor, cache: _Cache, index: list[int]) -> torch.Tensor:
    """A convolution that looks two frames back, as every one inside the decoder's blocks keeps them for the next."""
    before = cache[index[0]]
    seen = x if before is None else torch.cat([before, x], dim=2)
    cache[index[0]] = seen[:, :, -2:].clone()
    index[0] += 1
    return convolution(x, before)


def _cache(vae: Any) -> _Cache:
    """A place for each of the decoder's convolutions."""
    return [None] * len(list(vae.decoder.modules()))
