"""Wan2.2 TI2V-5B by stock diffusers, cut at the stages that are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from transformers import T5TokenizerFast, UMT5EncoderModel

from wan22core.errors import (
    CheckpointLayoutError,
    CorruptWeightsError,
    ModelNotFoundError,
    StageFailedError,
    UnsupportedQuantizationError,
    UserInputError,
)
from wan22core.model.outputs import to_uint8
from wan22core.records import Census, LoadedComponent, Progress
from wan22core.specs import BenchmarkSpec, Precision, Workload

_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}
_QUANTIZED_FROM = torch.bfloat16  # int8 and fp8 start from clean bf16 weights
_WEIGHT_FILES = ("*.safetensors",)
_MODULES = ("transformer", "text_encoder", "vae")

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
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        return str(_AttentionBackendRegistry.get_active_backend()[0].value)

    def load(self, report: Report) -> list[LoadedComponent]:
        """Loads every component with stock ``from_pretrained`` and moves it to the device.

        Raises ``CheckpointLayoutError`` for a pipeline that is not TI2V, ``CorruptWeightsError`` for unreadable files.
        """
        sizes = {name: self._bytes_of(name) for name in _MODULES}
        total, done = sum(sizes.values()), 0
        loaded = []
        for name in ("tokenizer", "scheduler", *_MODULES):
            began = time.perf_counter()
            with self._naming_bad_files(name):
                self._parts[name] = self._load_component(name)
            self._synchronize()
            done += sizes.get(name, 0)
            loaded.append(
                LoadedComponent(component=name, wall_s=time.perf_counter() - began, bytes_read=sizes.get(name, 0))
            )
            report(Progress(stage="load", fraction=done / total, bytes_done=done, bytes_total=total))
        self._pipeline = self._build_pipeline()
        return loaded

    def quantize(self, precision: Precision, report: Report) -> None:
        """Nothing but working precisions yet, and those are cast while loading."""
        if precision not in _DTYPES and precision is not Precision.NONE:
            raise UnsupportedQuantizationError(
                f"The transformer can't be quantized to {precision.value} on {self.device}.",
                next_action=f"Use one of {', '.join(sorted(kind.value for kind in _DTYPES))}.",
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
        """Start noise, encoded first frame and its mask, as the stock pipeline prepares them (VAE in fp32)."""
        pipeline = self._ready()
        workload = self.workload
        if not isinstance(pipeline, _ImageToVideoPipeline):
            raise StageFailedError("This workload has no start image.", next_action="Use an image-to-video workload.")
        image = pipeline.video_processor.preprocess(
            start_image(workload), height=workload.height, width=workload.width
        ).to(self.device, dtype=torch.float32)
        return tuple(
            WanImageToVideoPipeline.prepare_latents(
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
        )

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
        """Frames (frames, height, width, 3), as the stock pipelines decode."""
        pipeline = self._ready()
        vae = pipeline.vae
        latents = latents.to(self.device, vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        scale = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        video = vae.decode(latents / scale + mean, return_dict=False)[0]
        return to_uint8(pipeline.video_processor.postprocess_video(video, output_type="np")[0])

    def census(self) -> list[Census]:
        """Parameters, bytes by dtype and devices of every module, counted on the tensors themselves."""
        counted = []
        for name in _MODULES:
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

    def _load_component(self, name: str) -> Any:
        folder = str(self.checkpoint / name)
        recipe = self.spec.recipe
        if name == "tokenizer":
            return T5TokenizerFast.from_pretrained(folder, local_files_only=True)
        if name == "scheduler":
            return UniPCMultistepScheduler.from_pretrained(
                folder, local_files_only=True, flow_shift=self.workload.flow_shift
            )
        cls, precision = {
            "transformer": (WanTransformer3DModel, recipe.transformer_precision),
            "text_encoder": (UMT5EncoderModel, recipe.text_encoder_precision),
            "vae": (AutoencoderKLWan, recipe.vae_precision),
        }[name]
        kind: dict[str, Any] = {"dtype": "auto"} if name == "text_encoder" else {}
        if precision is not Precision.NONE:
            kind = {("dtype" if name == "text_encoder" else "torch_dtype"): _DTYPES.get(precision, _QUANTIZED_FROM)}
        module = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True, **kind)
        return module.to(self.device).eval()

    def _build_pipeline(self) -> WanPipeline | _ImageToVideoPipeline:
        config = WanPipeline.load_config(str(self.checkpoint), local_files_only=True)
        if not config.get("expand_timesteps"):
            raise CheckpointLayoutError(
                f"{self.checkpoint} is a Wan pipeline without expand_timesteps, so it is not TI2V-5B.",
                next_action="Use Wan-AI/Wan2.2-TI2V-5B-Diffusers.",
            )
        kind = _ImageToVideoPipeline if self.workload.image_to_video else WanPipeline
        optional = {"image_processor": None, "image_encoder": None} if self.workload.image_to_video else {}
        pipeline = kind(**self._parts, **optional, expand_timesteps=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @contextmanager
    def _naming_bad_files(self, component: str) -> Iterator[None]:
        """Unreadable files become ``CorruptWeightsError``; out of memory and the like pass through."""
        from safetensors import SafetensorError

        try:
            yield
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise CorruptWeightsError(
                f"The {component} in {self.checkpoint} can't be loaded: {error}",
                next_action=f"Run wan22 weights check {self.checkpoint}",
            ) from error

    def _bytes_of(self, component: str) -> int:
        return sum(
            file.stat().st_size for pattern in _WEIGHT_FILES for file in (self.checkpoint / component).glob(pattern)
        )

    def _ready(self) -> Any:
        if self._pipeline is None:
            raise StageFailedError("The model is not loaded.", next_action="Call load before any other stage.")
        return self._pipeline

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.workload.seed)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def start_image(workload: Workload) -> Image.Image:
    """The start image in the asked shape; without one a deterministic gradient, which is a valid input like any other.

    Raises ``UserInputError`` when the file is no image.
    """
    size = (workload.width, workload.height)
    if workload.image is None:
        x = np.linspace(0, 255, workload.width, dtype=np.float32)[None, :]
        y = np.linspace(0, 255, workload.height, dtype=np.float32)[:, None]
        channels = np.broadcast_arrays(x, y, (x + y) / 2)
        return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))
    try:
        with Image.open(workload.image) as image:
            return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise UserInputError(
            f"The start image {workload.image} can't be read: {error}.", next_action="Give a PNG or JPEG file."
        ) from error
