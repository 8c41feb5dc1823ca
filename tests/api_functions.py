"""A user's own loader and generators: the real tiny model, and every way of returning no video."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wan22core.settings import Settings


def load() -> Any:
    """The tiny checkpoint of ``WAN22_WEIGHTS_DIR`` with the stock pipeline."""
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(str(Settings().weights_path), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(model: Any, prompt: str, width: int, height: int, num_frames: int, num_inference_steps: int) -> Any:
    """A real video of the tiny model; a short prompt without guidance keeps it to few operations."""
    shape = {"width": width, "height": height, "num_frames": num_frames, "num_inference_steps": num_inference_steps}
    return model(prompt=prompt, guidance_scale=1.0, max_sequence_length=16, **shape).frames[0]


def load_nothing() -> str:
    return "a model"


def fail_to_load() -> Any:
    raise RuntimeError("no such weights")


def picture(model: str, frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Frames that differ from each other and within themselves; only a loaded model gives them."""
    assert model == "a model"
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def nothing() -> None:
    return None


def not_finite(frames: int, height: int, width: int) -> NDArray[np.float32]:
    return np.full((frames, height, width, 3), np.nan, dtype=np.float32)


def constant(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((frames, height, width, 3), dtype=np.uint8)


def still(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.broadcast_to(picture("a model", 1, height, width), (frames, height, width, 3))


def one_frame_less(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    return picture("a model", frames - 1, height, width)


def fail(frames: int) -> Any:
    raise ValueError(f"no {frames} frames today")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
