"""The stock pipelines, cut where the stages are measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

from wan22core.specs import Workload


class ImageToVideoPipeline(WanImageToVideoPipeline):
    """The stock pipeline with the encoded image handed in, so that encoding and denoising are timed apart."""

    encoded_image: tuple[torch.Tensor, ...] | None = None

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        return self.encoded_image or super().prepare_latents(*args, **kwargs)


def build_pipeline(parts: Mapping[str, Any], workload: Workload) -> WanPipeline | ImageToVideoPipeline:
    """The pipeline of a workload. The VAE must be among ``parts``; text encoder and transformer may come later."""
    kind = ImageToVideoPipeline if workload.image_to_video else WanPipeline
    optional = {"image_processor": None, "image_encoder": None} if workload.image_to_video else {}
    pipeline = kind(**{"text_encoder": None, "transformer": None, **parts}, **optional, expand_timesteps=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
