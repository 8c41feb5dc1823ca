"""What a stage produced, checked before its time counts; latents on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wan22core.errors import ConstantOutputError, MissingOutputError, NonFiniteOutputError, WrongFrameCountError
from wan22core.files import atomic_path, require_free_space
from wan22core.specs import Workload

if TYPE_CHECKING:
    import torch

_LATENT_CHANNELS = 48
_KEEP_FRAMES = "Measure again with --keep-frames."
_NEXT = "No time is recorded. Check the recipe's precision, the checkpoint's files and the driver."


def check_latents(latents: Any, workload: Workload) -> None:
    """Latents must be a finite, non-constant tensor (1, 48, frames, height, width).

    Raises ``MissingOutputError``, ``WrongFrameCountError``, ``NonFiniteOutputError`` or ``ConstantOutputError``.
    """
    import torch

    if not isinstance(latents, torch.Tensor) or latents.numel() == 0:
        raise MissingOutputError(
            f"The denoise stage returned {type(latents).__name__}, not latents.", next_action=_NEXT
        )
    expected = (1, _LATENT_CHANNELS, *workload.latent_shape)
    if tuple(latents.shape) != expected:
        raise WrongFrameCountError(
            f"The latents have the shape {tuple(latents.shape)}; {expected} was asked for.", next_action=_NEXT
        )
    if not bool(torch.isfinite(latents).all()):
        raise NonFiniteOutputError("The latents hold NaN or infinity.", next_action=_NEXT)
    if bool((latents == latents.flatten()[0]).all()):
        raise ConstantOutputError("All latents have one value.", next_action=_NEXT)


def check_frames(frames: Any, workload: Workload) -> None:
    """Frames must be uint8 (frames, height, width, 3) as asked for, not all of one colour, not one still picture.

    Raises ``MissingOutputError``, ``WrongFrameCountError``, ``NonFiniteOutputError`` or ``ConstantOutputError``.
    """
    if not isinstance(frames, np.ndarray) or frames.size == 0:
        raise MissingOutputError(f"The decode stage returned {type(frames).__name__}, not frames.", next_action=_NEXT)
    expected = (workload.frames, workload.height, workload.width, 3)
    if frames.shape != expected:
        raise WrongFrameCountError(
            f"The frames have the shape {frames.shape}; {expected} was asked for.", next_action=_NEXT
        )
    if np.issubdtype(frames.dtype, np.inexact) and not np.isfinite(frames).all():
        raise NonFiniteOutputError("The frames hold NaN or infinity.", next_action=_NEXT)
    if frames.dtype != np.uint8:
        raise MissingOutputError(f"The frames are {frames.dtype}, not uint8.", next_action=_NEXT)
    if all((frame == frames[0, 0, 0]).all() for frame in frames):
        raise ConstantOutputError("Every pixel of the video has one colour.", next_action=_NEXT)
    if len(frames) > 1 and all(np.array_equal(frame, frames[0]) for frame in frames[1:]):
        raise ConstantOutputError("All frames of the video are the same picture.", next_action=_NEXT)


def to_uint8(video: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Frames in [0, 1] to bytes.

    Raises ``NonFiniteOutputError`` for NaN or infinity instead of making them black, and ``MissingOutputError`` for
    another range, which would wrap around.
    """
    if not np.isfinite(video).all():
        raise NonFiniteOutputError("The decoded frames hold NaN or infinity.", next_action=_NEXT)
    low, high = float(video.min(initial=0)), float(video.max(initial=1))
    if low < 0 or high > 1:
        raise MissingOutputError(
            f"The frames' values run from {low:g} to {high:g}, not within 0 and 1.",
            next_action="Return floats in [0, 1], or uint8.",
        )
    return np.round(video * 255).astype(np.uint8)


def save_latents(path: Path, latents: torch.Tensor, metadata: dict[str, str]) -> None:
    """Writes the latents as safetensors, all or nothing."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({"latents": latents.contiguous().cpu()}, temporary, metadata=metadata)


def load_latents(path: Path) -> torch.Tensor:
    """The latents of ``save_latents``, on the CPU. Raises ``MissingOutputError`` when the file holds none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)["latents"]
    except (OSError, SafetensorError, KeyError) as error:
        raise MissingOutputError(
            f"{path} holds no latents: {error}.", next_action="Run the denoise stage again."
        ) from error


def save_frames(path: Path, frames: NDArray[np.uint8]) -> None:
    """Writes uint8 frames (frames, height, width, 3) as they are, in numpy's own form, all or nothing."""
    require_free_space(path.parent, frames.nbytes, "Keeping the frames")
    with atomic_path(path) as temporary:
        np.save(temporary, frames, allow_pickle=False)


def open_frames(path: Path) -> NDArray[np.uint8]:
    """The frames of ``save_frames``, mapped: a frame is read when it is looked at.

    Raises ``MissingOutputError`` when the file holds none.
    """
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MissingOutputError(f"{path} holds no frames: {error}.", next_action=_KEEP_FRAMES) from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise MissingOutputError(f"{path} holds {frames.dtype} {frames.shape}, no frames.", next_action=_KEEP_FRAMES)
    return frames
