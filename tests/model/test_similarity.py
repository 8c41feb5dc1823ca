"""Similarity of two videos against what is known of its measures without them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wan22core.errors import MissingOutputError
from wan22core.model.outputs import open_frames, save_frames, save_latents
from wan22core.model.similarity import compare_frames, compare_latents, luma, measure, psnr_db, ssim

RANDOM = np.random.default_rng(22)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def noise(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def picture(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RANDOM.uniform(0, 255, shape))


def saved(folder: Path, name: str, latents: torch.Tensor) -> Path:
    save_latents(folder / name, latents, {})
    return folder / name


def ssim_by_the_book(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Equations (6), (13) to (16) of the paper, one window after the other."""
    places = np.arange(11) - 5
    weights = np.exp(-(places[:, None] ** 2 + places[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (side[top : top + 11, left : left + 11] for side in (a, b))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            variance_x, variance_y = ((weights * (s - m) ** 2).sum() for s, m in ((x, mean_x), (y, mean_y)))
            covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
            brightness = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
            found.append(brightness * (2 * covariance + C2) / (variance_x + variance_y + C2))
    return float(np.mean(found))


def test_ssim_is_the_papers_index() -> None:
    """Window by window in plain numpy, on a picture and a disturbed one that is not square."""
    a = RANDOM.uniform(0, 255, (16, 23))
    b = np.clip(a + RANDOM.normal(0, 20, a.shape), 0, 255)
    assert ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(ssim_by_the_book(a, b), abs=1e-9)


def test_ssim_of_a_picture_with_itself_is_one_and_sides_do_not_matter() -> None:
    a, b = picture(20, 30), picture(20, 30)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert ssim(a, b) < 0.5


@pytest.mark.parametrize(("grey", "shift"), [(0.0, 255.0), (100.0, 3.0), (200.0, -50.0)])
def test_ssim_of_two_flat_pictures_is_their_brightness_term(grey: float, shift: float) -> None:
    """No variance: (2 a b + C1) / (a^2 + b^2 + C1), by hand."""
    other = grey + shift
    expected = (2 * grey * other + C1) / (grey**2 + other**2 + C1)
    assert ssim(torch.full((12, 15), grey).double(), torch.full((12, 15), other).double()) == pytest.approx(expected)


def test_ssim_of_a_shifted_ramp_is_known_in_closed_form() -> None:
    """A constant shift leaves the structure alone, and a window's mean on a ramp is the value in its middle."""
    ramp = (100 + torch.arange(21, dtype=torch.float64)).repeat(13, 1)
    middles = ramp[0, 5:-5]
    expected = ((2 * middles * (middles + 30) + C1) / (middles**2 + (middles + 30) ** 2 + C1)).mean()
    assert ssim(ramp, ramp + 30) == pytest.approx(float(expected), abs=1e-9)


def test_luma_is_that_of_bt_601() -> None:
    frame = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    assert luma(frame)[0].tolist() == pytest.approx([76.245, 149.685, 29.07, 255])


@pytest.mark.parametrize(("shift", "decibel"), [(1, 48.1308036), (5, 34.1514035), (255, 0.0)])
def test_psnr_of_a_constant_shift(shift: int, decibel: float) -> None:
    """20 log10(255 / shift) in every frame; between the frames nothing changes."""
    a = np.zeros((3, 12, 12, 3), dtype=np.uint8)
    found = compare_frames(a, a + np.uint8(shift))
    assert (found.psnr_db, found.worst_frame_psnr_db) == (pytest.approx(decibel), pytest.approx(decibel))
    assert (found.mean_squared_error, found.equal_frames, found.temporal_error) == (shift**2, 0, 0.0)


def test_frames_that_are_equal_have_no_psnr_and_a_similarity_of_one() -> None:
    frames = noise(3, 16, 24, 3)
    found = compare_frames(frames, frames.copy())
    assert (found.equal_frames, found.mean_squared_error, found.psnr_db) == (3, 0.0, None)
    assert (found.ssim, found.worst_frame_ssim) == (pytest.approx(1), pytest.approx(1))
    assert (found.temporal_error, psnr_db(0)) == (0.0, None)
    assert found.temporal_change is not None and found.temporal_change > 50


def test_the_worst_frame_and_a_flicker_are_seen() -> None:
    """One frame of five is 10 brighter: two of the four changes differ by 10, the error is a fifth of 100."""
    a = np.full((5, 12, 12, 3), 100, dtype=np.uint8)
    b = a.copy()
    b[2] += 10
    found = compare_frames(a, b)
    assert (found.equal_frames, found.mean_squared_error) == (4, pytest.approx(20))
    assert found.worst_frame_psnr_db == pytest.approx(20 * math.log10(25.5))
    assert found.worst_frame_ssim < found.ssim < 1
    assert (found.temporal_error, found.temporal_change) == (5.0, 0.0)


def test_a_single_frame_has_no_change() -> None:
    """None, and not zero: nothing was measured."""
    found = compare_frames(noise(1, 12, 12, 3), noise(1, 12, 12, 3))
    assert (found.temporal_error, found.temporal_change) == (None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_that_are_equal_scaled_turned_and_opposite(tmp_path: Path, dtype: torch.dtype) -> None:
    """Cosine and relative error as geometry has them; a scale changes the second and not the first."""
    a = torch.randn(1, 48, 3, 4, 6, generator=torch.manual_seed(1)).to(dtype)
    files = {
        name: saved(tmp_path, f"{name}.safetensors", latents)
        for name, latents in {"a": a, "same": a.clone(), "double": 2 * a, "opposite": -a}.items()
    }
    same, double, opposite = (compare_latents(files["a"], files[name]) for name in ("same", "double", "opposite"))
    assert (same.bit_equal, same.relative_l2_error, same.values) == (True, 0.0, a.numel())
    assert same.cosine == pytest.approx(1)
    assert (double.bit_equal, double.cosine, double.relative_l2_error) == (False, pytest.approx(1), pytest.approx(1))
    assert (opposite.cosine, opposite.relative_l2_error) == (pytest.approx(-1), pytest.approx(2))


def test_latents_at_a_right_angle(tmp_path: Path) -> None:
    """An error e at a right angle: the relative error is e, the cosine 1 / sqrt(1 + e^2)."""
    a, b = torch.zeros(2, 1, 48, 2, 4, 4).unbind()
    a[:, ::2], b[:, ::2], b[:, 1::2] = 1.0, 1.0, 0.25
    found = compare_latents(saved(tmp_path, "a.safetensors", a), saved(tmp_path, "b.safetensors", b))
    assert found.relative_l2_error == pytest.approx(0.25)
    assert found.cosine == pytest.approx(1 / math.hypot(1, 0.25))


def test_latents_that_are_zero_have_no_angle(tmp_path: Path) -> None:
    zero = saved(tmp_path, "zero.safetensors", torch.zeros(1, 48, 2, 4, 4))
    found = compare_latents(zero, zero)
    assert (found.bit_equal, found.cosine, found.relative_l2_error) == (True, None, None)


def test_two_shapes_and_files_of_something_else_are_refused(tmp_path: Path) -> None:
    short = saved(tmp_path, "short.safetensors", torch.ones(1, 48, 2, 4, 4))
    long = saved(tmp_path, "long.safetensors", torch.ones(1, 48, 3, 4, 4))
    with pytest.raises(MissingOutputError, match="two shapes"):
        compare_latents(short, long)
    with pytest.raises(MissingOutputError, match="two shapes"):
        compare_frames(noise(2, 12, 12, 3), noise(3, 12, 12, 3))
    (tmp_path / "text").write_text("no latents")
    with pytest.raises(MissingOutputError, match="holds no latents"):
        compare_latents(tmp_path / "text", short)
    with pytest.raises(MissingOutputError, match="holds no frames"):
        open_frames(tmp_path / "text")
    np.save(tmp_path / "float.npy", np.zeros((2, 12, 12, 3)))
    with pytest.raises(MissingOutputError, match="holds float64"):
        open_frames(tmp_path / "float.npy")


def test_frames_are_kept_to_the_bit_and_mapped(tmp_path: Path) -> None:
    """What is opened is a map of the file: a video is never in memory whole."""
    frames = noise(3, 12, 16, 3)
    save_frames(tmp_path / "frames.npy", frames)
    opened = open_frames(tmp_path / "frames.npy")
    assert isinstance(opened, np.memmap)
    assert np.array_equal(opened, frames)


def test_the_job_compares_what_it_is_given(tmp_path: Path) -> None:
    """Frames only where both sides have them; progress tells how many are done."""
    latents = saved(tmp_path, "a.safetensors", torch.ones(1, 48, 2, 4, 4))
    save_frames(tmp_path / "frames.npy", noise(2, 12, 12, 3))
    seen: list[float | None] = []
    frames = str(tmp_path / "frames.npy")
    found = measure(lambda progress: seen.append(progress.fraction), str(latents), str(latents), frames, frames)
    assert (found["latents"]["bit_equal"], found["frames"]["equal_frames"], seen) == (True, 2, [0.5, 1.0])
    assert measure(lambda _: None, str(latents), str(latents), frames)["frames"] is None
