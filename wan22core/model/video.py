"""Frames to a file, and what the file really holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wan22core.errors import MissingDependencyError, MissingOutputError, WrongFrameCountError
from wan22core.files import atomic_path
from wan22core.specs import Workload

if TYPE_CHECKING:
    import av

_ENCODERS = ("libx264", "libopenh264", "mpeg4")


@dataclass(frozen=True)
class VideoFacts:
    """Read back from a file by decoding all of it."""

    frames: int
    width: int
    height: int
    fps: float


def write_video(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    """Encodes uint8 frames (frames, height, width, 3) as yuv420p; all or nothing.

    Raises ``MissingDependencyError`` where this build of PyAV has none of the encoders.
    """
    import av

    encoder = next((name for name in _ENCODERS if _can_encode(name)), None)
    if encoder is None:
        raise MissingDependencyError(
            f"PyAV {av.__version__} has none of the encoders {', '.join(_ENCODERS)}.",
            next_action="Reinstall av from its wheel: pip install --force-reinstall av",
        )
    _, height, width, _ = frames.shape
    with atomic_path(path) as temporary, av.open(str(temporary), mode="w") as container:
        stream = cast("av.VideoStream", container.add_stream(encoder, rate=fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _can_encode(name: str) -> bool:
    """``av.codecs_available`` also lists what can only be decoded, so the encoder itself is asked for."""
    import av

    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def probe_video(path: Path) -> VideoFacts:
    """Decodes the file and counts what comes out; ``MissingOutputError`` when it is no video."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MissingOutputError(f"{path} holds no video stream.", next_action="Look at the worker's log.")
            stream = container.streams.video[0]
            count = sum(1 for _ in container.decode(stream))
            return VideoFacts(count, stream.width, stream.height, float(stream.average_rate or 0))
    except (av.FFmpegError, OSError) as error:
        raise MissingOutputError(
            f"{path} can't be read as a video: {error}.", next_action="Look at the worker's log."
        ) from error


def check_video(path: Path, workload: Workload) -> int:
    """Reads a written file back and returns its frames; ``WrongFrameCountError`` when they are not those asked for."""
    found = probe_video(path)
    if (found.frames, found.width, found.height) != (workload.frames, workload.width, workload.height):
        raise WrongFrameCountError(
            f"{path} holds {found.frames} frames of {found.width}x{found.height}; "
            f"{workload.frames} of {workload.width}x{workload.height} were written.",
            next_action="Reinstall av, then run again.",
        )
    return found.frames
