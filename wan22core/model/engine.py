"""Wan2.2 TI2V-5B by diffusers' pipelines, cut at the stages that are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wan22core.errors import ModelNotFoundError, StageFailedError
from wan22core.model.attention import active_attention
from wan22core.model.device import synchronize
from wan22core.model.images import start_image
from wan22core.model.integrity import require_valid
from wan22core.model.pipeline import ImageToVideoPipeline, build_pipeline
from wan22core.model.placement import Components
from wan22core.model.quantized_layers import working_dtype
from wan22core.model.step_cache import ForwardCount, step_cache
from wan22core.model.vae import decode_frames, encode_start_image
from wan22core.records import CachedForwards, Census, Compilation, LoadedComponent, Progress, Tile
from wan22core.specs import BenchmarkSpec, Precision, Tiling, Workload

Report = Callable[[Progress], None]
OnStep = Callable[[int, int], None]

PROMPT_TOKENS = 512
"""Length that every prompt is padded or cut to."""


class WanEngine:
    """The real model behind the worker's ``Engine`` protocol. Lives in the worker child."""

    def __init__(self, spec: BenchmarkSpec, checkpoint: Path | None, device: str) -> None:
        if checkpoint is None:
            raise ModelNotFoundError("No checkpoint was given to the engine.", next_action="Name one with --model.")
        self.spec = spec
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self._components: Components | None = None
        self._pipeline: Any = None
        self._cached: CachedForwards | None = None

    @property
    def workload(self) -> Workload:
        return self.spec.workload

    @property
    def attention_backend(self) -> str:
        """The backend that diffusers dispatches attention to; it is global to the process."""
        return active_attention()

    def load(self, report: Report) -> list[LoadedComponent]:
        """Loads what the recipe's placement holds in memory from the start.

        Raises what ``require_valid`` raises for a checkpoint that is not TI2V or not whole, ``CorruptWeightsError`` for
        one that can't be loaded completely, ``UserInputError`` or ``MissingDependencyError`` for the attention.
        """
        require_valid(self.checkpoint)
        self._components = Components(self.checkpoint, self.spec, self.device)
        loaded = self._components.load(report)
        self._pipeline = build_pipeline(self._components.modules, self.workload)
        return loaded

    def quantize(self, precision: Precision, report: Report) -> None:
        """Puts a precision in force in the transformer that was loaded for it; see ``quantize.put_in_force``."""
        self._ready().quantize(precision, report)

    @torch.no_grad()
    def encode(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings (1, 512, text_dim) of the prompt, and of the negative one where guidance needs it."""
        with self._using("text_encoder"):
            prompt, negative = self._pipeline.encode_prompt(
                prompt=self.workload.prompt,
                negative_prompt=self.workload.negative_prompt,
                do_classifier_free_guidance=self.workload.guidance > 1,
                num_videos_per_prompt=1,
                max_sequence_length=PROMPT_TOKENS,
                device=self.device,
                dtype=working_dtype(self._pipeline.text_encoder),  # its own answer may be that of fp8 weights
            )
        return prompt, negative

    @torch.no_grad()
    def encode_image(self, tile: Tile | None = None) -> tuple[torch.Tensor, ...]:
        """Start noise, encoded first frame and its mask, as the stock pipeline prepares them; in tiles where asked."""
        self._ready()
        if not isinstance(self._pipeline, ImageToVideoPipeline):
            raise StageFailedError("This workload has no start image.", next_action="Use an image-to-video workload.")
        with self._using("vae"):
            return encode_start_image(self._pipeline, self.workload, self._generator(), tile)

    @torch.no_grad()
    def denoise(self, embeddings: Any, condition: Any, on_step: OnStep) -> torch.Tensor:
        """Latents (1, 48, frames, height, width); ``on_step(index, steps)`` after each step, device synchronised.

        Synchronising once a step costs microseconds against steps of milliseconds to seconds, and without it the
        steps' times would be those of the queue.
        """
        self._ready()
        prompt, negative = embeddings

        def after_step(_pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            synchronize(self.device)
            on_step(index, self.workload.steps)
            return tensors

        with self._using("transformer"), self._leaving_out() as count:
            result = self._pipeline(
                prompt_embeds=prompt,
                negative_prompt_embeds=negative,
                height=self.workload.height,
                width=self.workload.width,
                num_frames=self.workload.frames,
                num_inference_steps=self.workload.steps,
                guidance_scale=self.workload.guidance,
                output_type="latent",
                callback_on_step_end=after_step,
                **self._start_of(condition),
            )
        self._cached = None if count is None else count.found
        return result.frames

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, tile: Tile | None = None) -> NDArray[np.uint8]:
        """Frames (frames, height, width, 3); in tiles where asked, see ``vae.decode_frames``."""
        stock_tiles = self.spec.recipe.vae_tiling is Tiling.DEFAULT
        with self._using("vae"):
            return decode_frames(self._pipeline, latents, tile, stock_tiles=stock_tiles)

    def make_room(self) -> bool:
        """Takes off the device what coding frames does not need; whether there was anything."""
        return self._ready().make_room()

    def take_brought(self) -> list[LoadedComponent]:
        """Components that were read or brought to the device since this was last asked."""
        return self._ready().take_brought()

    def take_compiled(self) -> Compilation | None:
        """What was compiled since this was last asked."""
        return self._ready().take_compiled()

    def take_cached(self) -> CachedForwards | None:
        """What a step cache left out of the last denoise."""
        return self._cached

    def census(self) -> list[Census]:
        """Parameters, bytes by dtype and devices of every module, counted on the tensors themselves."""
        return self._ready().census()

    @contextmanager
    def _using(self, name: str) -> Iterator[None]:
        """The pipeline has the component within the block; what leaves memory leaves the pipeline first."""
        components = self._ready()
        with components.on_device(name):
            if getattr(self._pipeline, name) is None:
                setattr(self._pipeline, name, components.modules[name])
            try:
                yield
            finally:
                if not components.stays(name):
                    setattr(self._pipeline, name, None)

    def _leaving_out(self) -> AbstractContextManager[ForwardCount | None]:
        """The recipe's step cache, in the transformer that the pipeline has now."""
        cache = self.spec.recipe.step_cache
        return nullcontext() if cache is None else step_cache(self._pipeline.transformer, cache, self.workload)

    def _start_of(self, condition: Any) -> dict[str, Any]:
        """What a denoising starts from: a seed, or the start image with what was encoded of it."""
        if not isinstance(self._pipeline, ImageToVideoPipeline):
            return {"generator": self._generator()}
        if condition is None:
            raise StageFailedError("The start image was not encoded.", next_action="Call encode_image before denoise.")
        self._pipeline.encoded_image = condition
        return {"image": start_image(self.workload)}

    def _ready(self) -> Components:
        if self._components is None:
            raise StageFailedError("The model is not loaded.", next_action="Call load before any other stage.")
        return self._components

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.workload.seed)
