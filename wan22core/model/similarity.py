"""How far two videos of one seed lie apart: latents from their files, frames as they were before the encoder.

Runs in a child process on the CPU. One latent frame, or two video frames, of each side are in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wan22core.errors import MissingOutputError
from wan22core.model.outputs import open_frames
from wan22core.records import FrameSimilarity, LatentSimilarity, Progress

Frame = NDArray[np.uint8]

_PEAK = 255.0
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
"""Window and constants of Wang, Bovik, Sheikh, Simoncelli: Image quality assessment (IEEE TIP 13(4), 2004), III-B."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def measure(
    report: Callable[[Progress], None],
    latents_a: str,
    latents_b: str,
    frames_a: str | None = None,
    frames_b: str | None = None,
) -> dict[str, Any]:
    """The job of a worker: ``LatentSimilarity``, and ``FrameSimilarity`` where both sides have frames, as JSON values.

    Raises ``MissingOutputError`` for a file that holds no such thing, and for two shapes.
    """
    latents = compare_latents(Path(latents_a), Path(latents_b))
    found: dict[str, Any] = {"latents": latents.model_dump(mode="json"), "frames": None}
    if frames_a is not None and frames_b is not None:

        def on_frame(done: int, total: int) -> None:
            report(Progress(stage="compare", fraction=done / total, step=done, steps=total))

        frames = compare_frames(open_frames(Path(frames_a)), open_frames(Path(frames_b)), on_frame)
        found["frames"] = frames.model_dump(mode="json")
    return found


def compare_latents(path_a: Path, path_b: Path) -> LatentSimilarity:
    """Cosine and relative error of two files of latents (1, 48, frames, height, width), frame after frame."""
    squares_a = squares_b = product = squared_error = 0.0
    values, equal = 0, True
    with _latents(path_a) as side_a, _latents(path_b) as side_b:
        shape, other = tuple(side_a.get_shape()), tuple(side_b.get_shape())
        if shape != other:
            raise _other_shape("latents", shape, other)
        for number in range(shape[2]):
            a, b = (side[:, :, number] for side in (side_a, side_b))
            equal = equal and bool(torch.equal(a, b))
            a, b = a.double().flatten(), b.double().flatten()
            squares_a += float(a @ a)
            squares_b += float(b @ b)
            product += float(a @ b)
            squared_error += float((b - a) @ (b - a))
            values += a.numel()
    norms = math.sqrt(squares_a) * math.sqrt(squares_b)
    return LatentSimilarity(
        values=values,
        bit_equal=equal,
        cosine=min(1.0, max(-1.0, product / norms)) if norms else None,
        relative_l2_error=math.sqrt(squared_error / squares_a) if squares_a else None,
    )


def compare_frames(
    a: Frame, b: Frame, on_frame: Callable[[int, int], None] = lambda _done, _total: None
) -> FrameSimilarity:
    """PSNR over the three channels, SSIM of the luma, and how differently the two move.

    ``a`` and ``b`` are uint8 (frames, height, width, 3), maybe mapped from their files; sides of 11 pixels or more.
    """
    if a.shape != b.shape:
        raise _other_shape("frames", a.shape, b.shape)
    errors: list[float] = []
    similarities: list[float] = []
    changes: list[tuple[float, float]] = []
    for number in range(len(a)):
        errors.append(mean_squared_error(a[number], b[number]))
        similarities.append(ssim(luma(a[number]), luma(b[number])))
        if number > 0:
            changes.append(_changes(a[number - 1 : number + 1], b[number - 1 : number + 1]))
        on_frame(number + 1, len(a))
    return FrameSimilarity(
        frames=len(a),
        equal_frames=errors.count(0.0),
        mean_squared_error=math.fsum(errors) / len(errors),
        psnr_db=psnr_db(math.fsum(errors) / len(errors)),
        worst_frame_psnr_db=psnr_db(max(errors)),
        ssim=math.fsum(similarities) / len(similarities),
        worst_frame_ssim=min(similarities),
        temporal_error=math.fsum(error for error, _ in changes) / len(changes) if changes else None,
        temporal_change=math.fsum(change for _, change in changes) / len(changes) if changes else None,
    )


def mean_squared_error(a: Frame, b: Frame) -> float:
    """Over pixels and channels of two frames, in squared steps of 255; exact, because it is summed in integers."""
    difference = a.astype(np.int32) - b.astype(np.int32)
    return int(np.sum(difference * difference, dtype=np.int64)) / difference.size


def psnr_db(error: float) -> float | None:
    """Peak signal-to-noise ratio of a mean squared error of 8-bit values; None for none, where it is infinite."""
    return 10 * math.log10(_PEAK**2 / error) if error > 0 else None


def luma(frame: Frame) -> torch.Tensor:
    """Luma (height, width) of an RGB frame in float64, 0 to 255."""
    return torch.from_numpy(frame.astype(np.float64) @ np.array(_LUMA))


def ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean structural similarity of two pictures (height, width) in float64, 0 to 255.

    The index of the paper with its Gaussian window of 11x11 pixels and sigma 1.5, at each place where the whole window
    lies inside the picture, at the full size.
    """
    mean_a, mean_b, square_a, square_b, product = (_blurred(each) for each in (a, b, a * a, b * b, a * b))
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return float((brightness * structure).mean())


def _blurred(picture: torch.Tensor) -> torch.Tensor:
    """Weighted means over the windows: the Gaussian is a product, so its two directions go one after the other."""
    places = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    kernel = torch.exp(-(places**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = torch.nn.functional.conv2d(picture[None, None], kernel.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, kernel.view(1, 1, 1, -1))[0, 0]


def _changes(a: Frame, b: Frame) -> tuple[float, float]:
    """Of two frames in a row: mean absolute difference of the two changes, and of A's own change."""
    change_a, change_b = (np.diff(side.astype(np.int16), axis=0) for side in (a, b))
    return float(np.abs(change_a - change_b).mean()), float(np.abs(change_a).mean())


@contextmanager
def _latents(path: Path) -> Iterator[Any]:
    """A slice of the latents of ``save_latents``, of which only what is asked for is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file.get_slice("latents")
    except (OSError, SafetensorError) as error:
        raise MissingOutputError(
            f"{path} holds no latents: {error}.", next_action="Give runs that ended with a video."
        ) from error


def _other_shape(what: str, a: tuple[int, ...], b: tuple[int, ...]) -> MissingOutputError:
    return MissingOutputError(
        f"The {what} have two shapes, {a} and {b}.", next_action="Compare two runs of one workload."
    )
