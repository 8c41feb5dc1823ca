"""Wan2.2 TI2V-5B by stock diffusers, cut at the stages that are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from numpy.typing import NDArray

from wan22core.errors import (
    ModelNotFoundError,
    NonFiniteOutputError,
    StageFailedError,
    UnsupportedQuantizationError,
)
from wan22core.model import loader
from wan22core.model.images import start_image
from wan22core.model.integrity import require_valid
from wan22core.model.outputs import to_uint8
from wan22core.records import Census, LoadedComponent, Progress
from wan22core.specs import BenchmarkSpec, Precision, Workload

Report = Callable[[Progress], None]
OnStep = Callable[[int, int], None]


class _ImageToVideoPipeline(WanImageToVideoPipeline):
    """The stock pipeline with the encoded image handed in, so that encoding and denoising are timed apart."""

    encoded_image: tuple[torch.Tensor, ...] | None = None

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        return self.encoded_image or super().prepare_latents(*args, **kwargs)


class WanEngine:
    """The real model behind the worker's ``Engine`` protocol. Lives in the worker child."""

    def __init__(self, spec: BenchmarkSpec, checkpoint: Path | None, device: str) -> None:
        if checkpoint is None:
            raise ModelNotFoundError("No checkpoint was given to the engine.", next_action="Name one with --model.")
        self.spec = spec
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self._parts: dict[str, Any] = {}
        self._pipeline: WanPipeline | _ImageToVideoPipeline | None = None

    @property
    def workload(self) -> Workload:
        return self.spec.workload

    @property
    def attention_backend(self) -> str:
        """The backend that diffusers dispatches attention to; it is global to the process."""
        return loader.active_attention_backend()

    def load(self, report: Report) -> list[LoadedComponent]:
        """Loads every component with stock ``from_pretrained`` and moves it to the device.

        Raises what ``require_valid`` raises for a checkpoint that is not TI2V or not whole, ``CorruptWeightsError`` for
        one that diffusers can't load completely, ``UserInputError`` or ``MissingDependencyError`` for the attention.
        """
        require_valid(self.checkpoint)
        sizes = loader.file_bytes(self.checkpoint)
        total, done = sum(sizes.values()), 0
        loaded = []
        for name in loader.COMPONENTS:
            began = time.perf_counter()
            self._parts[name] = loader.load_component(name, self.checkpoint, self.spec, self.device)
            self._synchronize()
            done += sizes.get(name, 0)
            loaded.append(
                LoadedComponent(component=name, wall_s=time.perf_counter() - began, bytes_read=sizes.get(name, 0))
            )
            report(Progress(stage="load", fraction=done / total, bytes_done=done, bytes_total=total))
        loader.apply_recipe(self._parts["transformer"], self._parts["vae"], self.spec.recipe)
        self._pipeline = self._build_pipeline()
        return loaded

    def quantize(self, precision: Precision, report: Report) -> None:
        """Working precisions are cast while loading, so this only holds what was loaded against what is asked.

        Raises ``UnsupportedQuantizationError`` for int8 and fp8, and for another precision than the loaded one.
        """
        supported = ", ".join(sorted(kind.value for kind in loader.DTYPES))
        if precision is not Precision.NONE and precision not in loader.DTYPES:
            raise UnsupportedQuantizationError(
                f"The transformer can't be quantized to {precision.value} on {self.device}.",
                next_action=f"Use one of {supported}.",
            )
        loaded = self._ready().transformer.dtype
        if precision is not Precision.NONE and loaded is not loader.DTYPES[precision]:
            raise UnsupportedQuantizationError(
                f"The transformer was loaded in {loaded}; {precision.value} is cast from clean weights while loading.",
                next_action=f"Load again with transformer_precision {precision.value}.",
            )
        report(Progress(stage="quantize", fraction=1.0))

    @torch.no_grad()
    def encode(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings (1, 512, text_dim) of the prompt, and of the negative one where guidance needs it."""
        prompt, negative = self._ready().encode_prompt(
            prompt=self.workload.prompt,
            negative_prompt=self.workload.negative_prompt,
            do_classifier_free_guidance=self.workload.guidance > 1,
            num_videos_per_prompt=1,
            max_sequence_length=512,
            device=self.device,
        )
        return prompt, negative

    @torch.no_grad()
    def encode_image(self) -> tuple[torch.Tensor, ...]:
        """Start noise, encoded first frame and its mask, as the stock pipeline prepares them.

        The VAE encodes in fp32 whatever it decodes in: in bf16 the first frame is visibly off.
        """
        pipeline = self._ready()
        workload = self.workload
        if not isinstance(pipeline, _ImageToVideoPipeline):
            raise StageFailedError("This workload has no start image.", next_action="Use an image-to-video workload.")
        image = pipeline.video_processor.preprocess(
            start_image(workload), height=workload.height, width=workload.width
        ).to(self.device, dtype=torch.float32)
        kept = pipeline.vae.dtype
        pipeline.vae.to(torch.float32)
        try:
            prepared = WanImageToVideoPipeline.prepare_latents(
                pipeline,
                image,
                1,
                pipeline.vae.config.z_dim,
                workload.height,
                workload.width,
                workload.frames,
                torch.float32,
                self.device,
                self._generator(),
            )
        finally:
            pipeline.vae.to(kept)
        return tuple(prepared)

    @torch.no_grad()
    def denoise(self, embeddings: Any, condition: Any, on_step: OnStep) -> torch.Tensor:
        """Latents (1, 48, frames, height, width); ``on_step(index, steps)`` after each step, device synchronised.

        Synchronising once a step costs microseconds against steps of milliseconds to seconds, and without it the
        steps' times would be those of the queue.
        """
        pipeline = self._ready()
        prompt, negative = embeddings
        extra: dict[str, Any] = {}
        if isinstance(pipeline, _ImageToVideoPipeline):
            if condition is None:
                raise StageFailedError(
                    "The start image was not encoded.", next_action="Call encode_image before denoise."
                )
            pipeline.encoded_image = condition
            extra["image"] = start_image(self.workload)
        else:
            extra["generator"] = self._generator()

        def after_step(_pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self._synchronize()
            on_step(index, self.workload.steps)
            return tensors

        result = pipeline(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            height=self.workload.height,
            width=self.workload.width,
            num_frames=self.workload.frames,
            num_inference_steps=self.workload.steps,
            guidance_scale=self.workload.guidance,
            output_type="latent",
            callback_on_step_end=after_step,
            **extra,
        )
        return result.frames

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Frames (frames, height, width, 3), as the stock pipelines decode.

        Raises ``NonFiniteOutputError``: the stock clamp would turn infinity into white.
        """
        pipeline = self._ready()
        vae = pipeline.vae
        latents = latents.to(self.device, vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        scale = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        video = vae.decode(latents / scale + mean, return_dict=False)[0]
        if not bool(torch.isfinite(video).all()):
            raise NonFiniteOutputError(
                "The decoded video holds NaN or infinity.", next_action="Check the VAE's files and precision."
            )
        return to_uint8(pipeline.video_processor.postprocess_video(video, output_type="np")[0])

    def census(self) -> list[Census]:
        """Parameters, bytes by dtype and devices of every module, counted on the tensors themselves."""
        counted = []
        for name in loader.MODULES:
            module = self._parts[name]
            by_dtype: dict[str, int] = {}
            tensors = [*module.parameters(), *module.buffers()]
            for tensor in tensors:
                key = str(tensor.dtype).removeprefix("torch.")
                by_dtype[key] = by_dtype.get(key, 0) + tensor.nbytes
            counted.append(
                Census(
                    component=name,
                    parameters=sum(parameter.numel() for parameter in module.parameters()),
                    bytes_by_dtype=by_dtype,
                    devices=sorted({str(tensor.device) for tensor in tensors}),
                )
            )
        return counted

    def _build_pipeline(self) -> WanPipeline | _ImageToVideoPipeline:
        kind = _ImageToVideoPipeline if self.workload.image_to_video else WanPipeline
        optional = {"image_processor": None, "image_encoder": None} if self.workload.image_to_video else {}
        pipeline = kind(**self._parts, **optional, expand_timesteps=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _ready(self) -> Any:
        if self._pipeline is None:
            raise StageFailedError("The model is not loaded.", next_action="Call load before any other stage.")
        return self._pipeline

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.workload.seed)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
