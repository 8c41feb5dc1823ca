"""Decoding in tiles that see the whole frame: what a tile alone can't know is computed once for all of them.

The middle of the decoder attends to every place of a frame, at a sixteenth of its size; the rest is convolutions, which
take nearly all of the memory and the time and see their neighbourhood only. So the middle runs on whole frames, and the
rest in tiles. diffusers' own tiling cuts the middle as well, which shifts the picture from tile to tile.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import CACHE_T, unpatchify

from wan22core.records import Tile

Caches = list[Any]
"""Of the causal convolutions, in the order in which they run: what they keep of the frames before."""


def decode_in_tiles(vae: Any, latents: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Video (1, 3, frames, height, width) in [-1, 1] of ``latents`` (1, channels, frames, height, width).

    ``vae`` is an ``AutoencoderKLWan``. A tile's edge is blended into what its upper and left neighbours left there.
    """
    patch, ratio = vae.config.patch_size or 1, vae.spatial_compression_ratio
    middle = _middle(vae, latents)
    height, width = latents.shape[-2:]
    canvas: torch.Tensor | None = None
    for top in range(0, height, tile.stride_height // ratio):
        for left in range(0, width, tile.stride_width // ratio):
            bottom, right = top + tile.height // ratio, left + tile.width // ratio
            decoded = _upper(vae, [frame[..., top:bottom, left:right] for frame in middle])
            if canvas is None:
                scale = ratio // patch
                canvas = decoded.new_zeros(*decoded.shape[:3], height * scale, width * scale)
            overlap = [(tile.height - tile.stride_height) // patch, (tile.width - tile.stride_width) // patch]
            _blend(canvas, decoded, top * ratio // patch, left * ratio // patch, overlap)
    assert canvas is not None
    return torch.clamp(unpatchify(canvas, patch_size=patch) if patch > 1 else canvas, min=-1.0, max=1.0)


def _middle(vae: Any, latents: torch.Tensor) -> list[torch.Tensor]:
    """What comes out of the decoder's middle for each latent frame, whole."""
    caches = _fresh(vae)
    found = []
    for frame in vae.post_quant_conv(latents).split(1, dim=2):
        index = [0]
        entered = _causal(vae.decoder.conv_in, frame, caches, index)
        found.append(vae.decoder.mid_block(entered, feat_cache=caches, feat_idx=index))
    return found


def _upper(vae: Any, frames: list[torch.Tensor]) -> torch.Tensor:
    """The rest of the decoder on one tile of the middle's frames."""
    decoder, caches = vae.decoder, _fresh(vae)
    found = []
    for number, frame in enumerate(frames):
        index = [0]
        for block in decoder.up_blocks:
            frame = block(frame, feat_cache=caches, feat_idx=index, first_chunk=number == 0)
        found.append(_causal(decoder.conv_out, decoder.nonlinearity(decoder.norm_out(frame)), caches, index))
    return torch.cat(found, dim=2)


def _fresh(vae: Any) -> Caches:
    return [None] * vae._cached_conv_counts["decoder"]


def _causal(convolution: Any, frames: torch.Tensor, caches: Caches, index: list[int]) -> torch.Tensor:
    """A causal convolution with the last frames of the chunk before, as the decoder's own blocks call theirs."""
    place = index[0]
    kept = frames[:, :, -CACHE_T:].clone()
    if kept.shape[2] < CACHE_T and caches[place] is not None:
        kept = torch.cat([caches[place][:, :, -1:], kept], dim=2)
    result = convolution(frames, caches[place])
    caches[place] = kept
    index[0] += 1
    return result


def _blend(canvas: torch.Tensor, decoded: torch.Tensor, top: int, left: int, overlap: list[int]) -> None:
    """Puts a tile in its place; where others are already it fades in over the overlap."""
    height, width = decoded.shape[-2:]
    weight = torch.ones(height, width, device=decoded.device, dtype=decoded.dtype)
    for axis, (start, length) in enumerate(((top, height), (left, width))):
        fading = min(overlap[axis], length) if start else 0
        ramp = torch.ones(length, device=decoded.device, dtype=decoded.dtype)
        ramp[:fading] = (torch.arange(fading, device=decoded.device) + 0.5).to(decoded.dtype) / max(fading, 1)
        weight *= ramp.unsqueeze(1 - axis)
    part = canvas[..., top : top + height, left : left + width]
    part.lerp_(decoded, weight)
