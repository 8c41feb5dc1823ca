"""Videos to make. Shapes that the model can't make are refused with the nearest that it can."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from wan22core.specs.base import Spec

SPATIAL_MULTIPLE = 32  # VAE 16x in space, then the transformer's 2x2 patches
TEMPORAL_FACTOR = 4  # frames are 4k+1: the first frame is coded alone
MAX_SIDE = 2560
MAX_FRAMES = 481
_NEAREST = "the nearest valid value is"


class Workload(Spec):
    """One video to make. Shapes that the model can't make are refused with the nearest that it can."""

    name: str = Field(default="custom", min_length=1)
    """Name under which history keeps it; a workload with overrides is named by its values."""
    width: int = Field(gt=0, le=MAX_SIDE)
    """Pixels, a multiple of 32."""
    height: int = Field(gt=0, le=MAX_SIDE)
    """Pixels, a multiple of 32."""
    frames: int = Field(gt=0, le=MAX_FRAMES)
    """4k+1 frames."""
    fps: int = Field(default=24, ge=1, le=60)
    """Frames per second of the written file."""
    steps: int = Field(default=50, ge=1, le=200)
    """Denoising steps."""
    guidance: float = Field(default=5.0, ge=0, le=30)
    """Classifier-free guidance; above 1 a step is two forwards."""
    flow_shift: float = Field(default=5.0, gt=0, le=20)
    """Shift of the flow-matching schedule."""
    prompt: str = Field(default="A cat walks along a garden wall in the evening sun.", min_length=1, max_length=2000)
    """What to show."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What to avoid."""
    image_to_video: bool = False
    """Start from an image."""
    image: Path | None = None
    """The start image; None makes a deterministic synthetic one of the asked shape."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Seed of the start noise."""

    @model_validator(mode="after")
    def _shape_is_native(self) -> Self:
        problems = [
            f"{side} {value} is not a multiple of {SPATIAL_MULTIPLE}: {_NEAREST} {nearest_multiple(value)}"
            for side, value in (("width", self.width), ("height", self.height))
            if value % SPATIAL_MULTIPLE
        ]
        if self.frames % TEMPORAL_FACTOR != 1:
            problems.append(f"frames {self.frames} is not 4k+1: {_NEAREST} {nearest_frames(self.frames)}")
        if self.image is not None and not self.image_to_video:
            problems.append("an image was given, but image_to_video is off")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def duration_s(self) -> float:
        """Length of the video in seconds."""
        return self.frames / self.fps

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(frames, height, width) of the latents: 4x in time, 16x in space."""
        return (self.frames - 1) // TEMPORAL_FACTOR + 1, self.height // 16, self.width // 16

    @property
    def identity(self) -> tuple[int, int, int, int, int, float, float, bool]:
        """What makes it the workload that it is; the words, the picture and the seed may differ."""
        shape = (self.width, self.height, self.frames, self.fps, self.steps)
        return (*shape, self.guidance, self.flow_shift, self.image_to_video)

    @property
    def tokens(self) -> int:
        """Sequence length in the transformer: latents in patches of 1x2x2."""
        frames, height, width = self.latent_shape
        return frames * (height // 2) * (width // 2)


def nearest_multiple(value: int) -> int:
    """The nearest positive multiple of 32 up to the largest side."""
    return min(max(SPATIAL_MULTIPLE, round(value / SPATIAL_MULTIPLE) * SPATIAL_MULTIPLE), MAX_SIDE)


def nearest_frames(frames: int) -> int:
    """The nearest 4k+1 up to the longest video."""
    return min(max(1, round((frames - 1) / TEMPORAL_FACTOR) * TEMPORAL_FACTOR + 1), MAX_FRAMES)


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(name="smoke", width=160, height=160, frames=9, steps=5),
        Workload(name="2s-480p", width=832, height=480, frames=49),
        Workload(name="2s-720p", width=1280, height=704, frames=49),
        Workload(name="2s-720p-i2v", width=1280, height=704, frames=49, image_to_video=True),
        Workload(name="5s-720p", width=1280, height=704, frames=121),
    )
}
