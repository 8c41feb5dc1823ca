"""Outputs are looked at before a time counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wan22core.errors import (
    ConstantOutputError,
    MissingOutputError,
    NonFiniteOutputError,
    WrongFrameCountError,
)
from wan22core.model import outputs, video
from wan22core.specs import WORKLOADS, Workload

SMALL = Workload(name="small", width=64, height=64, frames=5, steps=2)


def _latents(value: float | None = None) -> torch.Tensor:
    shape = (1, 48, *SMALL.latent_shape)
    return torch.randn(shape) if value is None else torch.full(shape, value)


@pytest.mark.parametrize(
    ("latents", "error"),
    [
        (None, MissingOutputError),
        (_latents(float("nan")), NonFiniteOutputError),
        (_latents(1.0), ConstantOutputError),
        (torch.randn(1, 48, 3, 4, 4), WrongFrameCountError),
    ],
    ids=["none", "nan", "constant", "frames"],
)
def test_bad_latents_are_named(latents: torch.Tensor | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        outputs.check_latents(latents, SMALL)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (None, MissingOutputError),
        (np.zeros((5, 64, 64, 3), np.uint8), ConstantOutputError),
        (np.arange(4 * 64 * 64 * 3, dtype=np.uint64).astype(np.uint8).reshape(4, 64, 64, 3), WrongFrameCountError),
        (np.zeros((5, 64, 64, 3), np.float32), MissingOutputError),
    ],
    ids=["none", "constant", "frames", "dtype"],
)
def test_bad_frames_are_named(frames: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        outputs.check_frames(frames, SMALL)


def test_frames_that_are_not_finite_never_become_bytes() -> None:
    with pytest.raises(NonFiniteOutputError):
        outputs.to_uint8(np.array([0.5, np.nan]))


def test_latents_come_back_as_they_were_saved(tmp_path: Path) -> None:
    latents = _latents()
    outputs.save_latents(tmp_path / "latents.safetensors", latents, {"workload": "small"})
    assert torch.equal(outputs.load_latents(tmp_path / "latents.safetensors"), latents)


def test_a_video_holds_the_frames_that_were_written(tmp_path: Path) -> None:
    workload = WORKLOADS["smoke"]
    shape = (workload.frames, workload.height, workload.width, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    video.write_video(tmp_path / "v.mp4", frames, 24)
    assert video.probe_video(tmp_path / "v.mp4") == video.VideoFacts(9, 160, 160, 24.0)


def test_garbage_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(MissingOutputError, match="can't be read as a video"):
        video.probe_video(tmp_path / "v.mp4")
