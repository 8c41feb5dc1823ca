"""Stock diffusers behind the worker's ``Engine`` protocol: plain diffusers calls, cut at the stages that are measured.

Written by diffusers' documentation: ``from_pretrained`` and ``to``; group offload and tiling; every switch for speed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
from diffusers.hooks import apply_group_offloading
from numpy.typing import NDArray

from wan22core.errors import (
    IncompatibleHardwareError,
    ModelNotFoundError,
    StageFailedError,
    UnsupportedQuantizationError,
    UserInputError,
)
from wan22core.model import loader
from wan22core.model.attention import active_attention
from wan22core.model.census import counted
from wan22core.model.device import synchronize
from wan22core.model.engine import PROMPT_TOKENS
from wan22core.model.integrity import require_valid
from wan22core.model.vae import decode_frames
from wan22core.records import Census, LoadedComponent, Progress, Tile
from wan22core.specs import BenchmarkSpec, Precision, Tiling
from wan22core.worker.engine import OnStep, Report

_LOCAL = {"local_files_only": True, "use_safetensors": True}


class StockDefault:
    """``from_pretrained(...).to("cuda")``: bf16 with the VAE in fp32, all on the device, whole frames."""

    def __init__(self, spec: BenchmarkSpec, checkpoint: Path | None, device: str) -> None:
        if checkpoint is None:
            raise ModelNotFoundError("No checkpoint was given to the engine.", next_action="Name one with --model.")
        if spec.workload.image_to_video:
            raise UserInputError(
                "The stock baselines make videos of a prompt alone.", next_action="Choose a text-to-video workload."
            )
        self.spec = spec
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self._pipeline: Any = None

    def load(self, report: Report) -> list[LoadedComponent]:
        """The whole pipeline, counted as one component. Raises what ``require_valid`` and diffusers raise."""
        require_valid(self.checkpoint)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # diffusers knows "cuda" alone where it maps devices
        began = time.perf_counter()
        pipeline = self._loaded()
        shift = self.spec.workload.flow_shift
        pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=shift)
        pipeline.set_progress_bar_config(disable=True)
        synchronize(self.device)
        self._pipeline = pipeline
        report(Progress(stage="load", fraction=1.0))
        bytes_read = sum(loader.file_bytes(self.checkpoint).values())
        return [LoadedComponent(component="pipeline", wall_s=time.perf_counter() - began, bytes_read=bytes_read)]

    def quantize(self, precision: Precision, report: Report) -> None:
        """Nothing is quantized; ``UnsupportedQuantizationError`` for all but bf16."""
        if precision is not Precision.BF16:
            raise UnsupportedQuantizationError(
                f"The stock baselines compute in bf16, not in {precision.value}.", next_action="Take a recipe of ours."
            )
        report(Progress(stage="quantize", fraction=1.0))

    @torch.no_grad()
    def encode(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings (1, 512, text_dim) of the prompt, and of the negative one where guidance needs it."""
        workload = self.spec.workload
        prompt, negative = self._ready().encode_prompt(
            prompt=workload.prompt,
            negative_prompt=workload.negative_prompt,
            do_classifier_free_guidance=workload.guidance > 1,
            max_sequence_length=PROMPT_TOKENS,
            device=self.device,
        )
        return prompt, negative

    def encode_image(self, tile: Tile | None = None) -> Any:
        """There is no start image; raises ``StageFailedError``."""
        del tile
        raise StageFailedError(
            "The stock baselines have no start image.", next_action="Choose a text-to-video workload."
        )

    def denoise(self, embeddings: Any, condition: Any, on_step: OnStep) -> torch.Tensor:
        """Latents (1, 48, frames, height, width); the device is synchronised after each step, as in our own engine."""
        del condition  # there is no start image
        workload = self.spec.workload
        prompt, negative = embeddings

        def after_step(_pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            synchronize(self.device)
            on_step(index, workload.steps)
            return tensors

        result = self._ready()(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            height=workload.height,
            width=workload.width,
            num_frames=workload.frames,
            num_inference_steps=workload.steps,
            guidance_scale=workload.guidance,
            generator=torch.Generator(self.device).manual_seed(workload.seed),
            output_type="latent",
            callback_on_step_end=after_step,
        )
        latents: torch.Tensor = result.frames
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, tile: Tile | None = None) -> NDArray[np.uint8]:
        """Frames (frames, height, width, 3): what the pipeline does after its last step, in the tiles of the load.

        Raises ``NonFiniteOutputError``, as our own engine does.
        """
        del tile  # enabled by the load, where the recipe has any
        return decode_frames(self._ready(), latents, None)

    def make_room(self) -> bool:
        """Stock diffusers leaves everything where it is."""
        return False

    def take_brought(self) -> list[LoadedComponent]:
        """What group offload moves is part of a step."""
        return []

    def take_compiled(self) -> None:
        """diffusers tells nothing of what it compiles; a first step shows it."""

    def take_cached(self) -> None:
        """Nothing: no way of stock diffusers that is measured here leaves steps out."""

    def census(self) -> list[Census]:
        """Parameters, bytes by dtype and devices of every module, where they are between the stages."""
        return [counted(name, getattr(self._ready(), name)) for name in loader.MODULES]

    @property
    def attention_backend(self) -> str:
        """The backend that diffusers dispatches attention to."""
        return active_attention()

    def _loaded(self) -> Any:
        vae = AutoencoderKLWan.from_pretrained(str(self.checkpoint / "vae"), dtype=torch.float32, **_LOCAL)
        pipeline = WanPipeline.from_pretrained(str(self.checkpoint), vae=vae, dtype=torch.bfloat16, **_LOCAL)
        return pipeline.to(self.device)

    def _ready(self) -> Any:
        if self._pipeline is None:
            raise StageFailedError("The model is not loaded.", next_action="Call load before any other stage.")
        return self._pipeline


class StockLowVram(StockDefault):
    """Group offload of transformer and text encoder on copy streams, the VAE in bf16 and in tiles.

    The transformer goes by blocks. The text encoder goes by leaves: its blocks lie one module deeper than a group by
    blocks looks, and would all come at once, 10.6 GiB. The VAE stays on the device: tiling together with streams needs
    a pass over the untiled VAE first, and it is small beside a tile's activations. A CPU has no streams.
    """

    def _loaded(self) -> Any:
        pipeline = WanPipeline.from_pretrained(str(self.checkpoint), dtype=torch.bfloat16, **_LOCAL)
        on_cuda = self.device.type == "cuda"
        offload = {
            "onload_device": self.device,
            "offload_device": torch.device("cpu"),
            "use_stream": on_cuda,
            "record_stream": on_cuda,
        }
        pipeline.transformer.enable_group_offload(**offload, offload_type="block_level", num_blocks_per_group=1)
        apply_group_offloading(pipeline.text_encoder, **offload, offload_type="leaf_level")
        pipeline.vae.to(self.device)
        pipeline.vae.enable_tiling()
        return pipeline


class StockTuned(StockDefault):
    """Every documented switch that makes it faster: device map, cuDNN's attention, TF32, compiled blocks, a bf16 VAE.

    Frames go in diffusers' own tiles where the recipe says so.
    """

    def _loaded(self) -> Any:
        if self.device.type != "cuda":
            raise IncompatibleHardwareError(
                f"{self.spec.recipe.name} needs CUDA for cuDNN's attention, and this run is on {self.device}.",
                next_action="Leave it out, or run on a GPU.",
            )
        torch.set_float32_matmul_precision("high")
        pipeline = WanPipeline.from_pretrained(str(self.checkpoint), dtype=torch.bfloat16, device_map="cuda", **_LOCAL)
        pipeline.transformer.set_attention_backend(self.spec.recipe.attention_backend)
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        if self.spec.recipe.vae_tiling is not Tiling.OFF:
            pipeline.vae.enable_tiling()
        return pipeline
