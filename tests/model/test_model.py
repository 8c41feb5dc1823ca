"""The true architecture, random checkpoints in the hub's layout, and the engine on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from PIL import Image
from transformers import UMT5Config, UMT5EncoderModel

from wan22core.errors import (
    CheckpointLayoutError,
    ConstantOutputError,
    CorruptWeightsError,
    InsufficientDiskSpaceError,
    MissingOutputError,
    NonFiniteOutputError,
    UserInputError,
    WrongFrameCountError,
)
from wan22core.files import sha256
from wan22core.model import checkpoint, outputs, video
from wan22core.model.architecture import SHAPES, identify
from wan22core.model.building import is_complete
from wan22core.model.engine import WanEngine
from wan22core.model.images import start_image
from wan22core.model.layout import PROVENANCE_FILE
from wan22core.recipes import recipe
from wan22core.records import Progress
from wan22core.specs import WORKLOADS, Architecture, BenchmarkSpec, Workload

SMALL = Workload(name="small", width=64, height=64, frames=5, steps=2)


def _engine(folder: Path, workload: Workload = SMALL) -> WanEngine:
    return WanEngine(BenchmarkSpec(workload=workload, recipe=recipe("reference")), folder, "cpu")


@pytest.mark.parametrize("architecture", list(Architecture))
def test_the_parameters_add_up(architecture: Architecture) -> None:
    """4,999,787,712 + 5,680,910,336 + 704,688,668 for the 5B model: the exact published architecture."""
    shapes = SHAPES[architecture]
    with torch.device("meta"):
        modules = {
            "transformer": WanTransformer3DModel(**shapes.transformer),
            "text_encoder": UMT5EncoderModel(UMT5Config(**shapes.text_encoder)),
            "vae": AutoencoderKLWan(**shapes.vae),
        }
    counted = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    assert counted == dict(shapes.parameters)
    if architecture is Architecture.TI2V_5B:
        assert list(counted.values()) == [4_999_787_712, 5_680_910_336, 704_688_668]


def test_a_made_checkpoint_loads_with_the_stock_pipeline(tiny_checkpoint: Path) -> None:
    pipeline = WanPipeline.from_pretrained(str(tiny_checkpoint), local_files_only=True)
    assert pipeline.config.expand_timesteps is True
    configs = {
        "transformer": dict(pipeline.transformer.config),
        "text_encoder": pipeline.text_encoder.config.to_dict(),
        "vae": dict(pipeline.vae.config),
    }
    assert identify(configs) is Architecture.TINY
    assert identify(configs | {"vae": configs["vae"] | {"base_dim": 33}}) is None


@pytest.mark.parametrize(
    ("component", "cls"),
    [("transformer", WanTransformer3DModel), ("vae", AutoencoderKLWan), ("text_encoder", UMT5EncoderModel)],
)
def test_no_key_is_missing_or_unexpected(tiny_checkpoint: Path, component: str, cls: type) -> None:
    _, info = cls.from_pretrained(str(tiny_checkpoint / component), output_loading_info=True)
    assert {key: list(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")} == {
        "missing_keys": [],
        "unexpected_keys": [],
        "mismatched_keys": [],
    }


def test_the_layout_is_the_hubs(tiny_checkpoint: Path) -> None:
    """Sharded transformer and text encoder with an index, one VAE file, a pipeline index with expand_timesteps."""
    index = json.loads((tiny_checkpoint / "model_index.json").read_text())
    assert (index["expand_timesteps"], index["transformer_2"]) == (True, [None, None])
    for folder, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        shards = json.loads((tiny_checkpoint / folder / f"{stem}.safetensors.index.json").read_text())
        named = set(shards["weight_map"].values())
        assert named == {file.name for file in (tiny_checkpoint / folder).glob("*.safetensors")}
        assert len(named) > 1
    assert (tiny_checkpoint / "vae" / "diffusion_pytorch_model.safetensors").is_file()


def test_the_same_seed_gives_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    provenance = checkpoint.make_random(folder=str(tmp_path / "t"), architecture="tiny", seed=0, report=seen.append)
    original = json.loads((tiny_checkpoint / PROVENANCE_FILE).read_text())
    assert provenance["sha256"] == original["sha256"]
    assert {name: sha256(tmp_path / "t" / name) for name in provenance["sha256"]} == provenance["sha256"]
    assert (seen[-1].fraction, seen[-1].bytes_done) == (1.0, seen[-1].bytes_total)
    first = checkpoint.random_tensor("vae", "a.weight", (4, 4), "float32", seed=0)
    assert not torch.equal(first, checkpoint.random_tensor("vae", "a.weight", (4, 4), "float32", seed=1))
    assert not torch.equal(first, checkpoint.random_tensor("vae", "b.weight", (4, 4), "float32", seed=0))


def test_a_killed_make_leaves_no_checkpoint_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: nothing stands under the final name."""
    target = tmp_path / "tiny"
    code = (
        "import os, signal\n"
        "from wan22core.model.checkpoint import make_random\n"
        "def report(p):\n"
        "    if p.fraction > 0.5: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"make_random(folder={str(target)!r}, architecture='tiny', seed=0, report=report)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ))
    assert (done.returncode, is_complete(target)) == (-signal.SIGKILL, False)
    assert list(tmp_path.glob(".tiny.making-*")) != []
    checkpoint.make_random(folder=str(target), architecture="tiny", seed=0, report=lambda _: None)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["tiny"]


def test_a_disk_too_small_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(InsufficientDiskSpaceError, match="random tiny checkpoint needs"):
        checkpoint.make_random(folder=str(tmp_path / "t"), architecture="tiny", seed=0, report=lambda _: None)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_make_never_replaces_what_wan22_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(CheckpointLayoutError, match="did not make"):
        checkpoint.make_random(folder=str(tmp_path), architecture="tiny", seed=0, report=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_disk_that_fills_up_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """A real file size limit in a child stands in for the full disk: the same write fails, with another number."""
    target = tmp_path / "tiny"
    code = (
        "import resource, signal\n"
        "from wan22core.errors import StorageError\n"
        "from wan22core.model.checkpoint import make_random\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))\n"
        "try:\n"
        f"    make_random(folder={str(target)!r}, architecture='tiny', seed=0, report=lambda _: None)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "could not be written: File too large" in done.stdout
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_second_maker_takes_what_the_first_one_made(tmp_path: Path) -> None:
    """Started while the first holds the lock, it waits, and writes nothing."""
    target = tmp_path / "tiny"
    second: list[Progress] = []
    results: list[dict[str, object]] = []

    def make_second() -> None:
        results.append(checkpoint.make_random(folder=str(target), architecture="tiny", seed=0, report=second.append))

    other = threading.Thread(target=make_second)
    waiting = threading.Event()

    def start_second(_: Progress) -> None:
        if not other.ident:
            other.start()
            waiting.wait(timeout=0.5)  # the second comes to the lock, or later to the finished checkpoint's lock

    first = checkpoint.make_random(folder=str(target), architecture="tiny", seed=0, report=start_second)
    other.join()
    assert (results, second) == ([first], [])


@pytest.mark.parametrize("image_to_video", [False, True], ids=["t2v", "i2v"])
def test_the_stages_give_what_the_stock_pipeline_gives(tiny_checkpoint: Path, image_to_video: bool) -> None:
    """Cut into encode, encode_image, denoise and decode, the result is the stock call's, bit for bit."""
    workload = SMALL.model_copy(update={"image_to_video": image_to_video})
    engine = _engine(tiny_checkpoint, workload)
    loaded = engine.load(lambda _: None)
    steps: list[tuple[int, int]] = []
    condition = engine.encode_image() if image_to_video else None
    latents = engine.denoise(engine.encode(), condition, lambda index, count: steps.append((index, count)))
    frames = engine.decode(latents)

    stock_cls = WanImageToVideoPipeline if image_to_video else WanPipeline
    parts = engine._ready().modules | ({"image_encoder": None, "image_processor": None} if image_to_video else {})
    stock = stock_cls(**parts, expand_timesteps=True)(
        **({"image": start_image(workload)} if image_to_video else {}),
        prompt=workload.prompt,
        negative_prompt=workload.negative_prompt,
        height=64,
        width=64,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(42),
        output_type="np",
    ).frames[0]
    assert np.array_equal(frames, outputs.to_uint8(stock))
    assert steps == [(0, 2), (1, 2)]
    assert [part.component for part in loaded] == ["tokenizer", "scheduler", "transformer", "text_encoder", "vae"]
    assert {part.component for part in loaded if part.bytes_read} == {"transformer", "text_encoder", "vae"}
    outputs.check_latents(latents, workload)
    outputs.check_frames(frames, workload)


def test_the_census_shows_what_diffusers_keeps_in_fp32(tiny_checkpoint: Path) -> None:
    engine = _engine(tiny_checkpoint)
    engine.load(lambda _: None)
    census = {part.component: part for part in engine.census()}
    assert set(census["transformer"].bytes_by_dtype) == {"float32", "bfloat16"}
    assert set(census["vae"].bytes_by_dtype) == {"float32"}
    assert {name: part.parameters for name, part in census.items()} == dict(SHAPES[Architecture.TINY].parameters)


def test_a_truncated_shard_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    shard = sorted((folder / "transformer").glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(CorruptWeightsError, match="transformer"):
        _engine(folder).load(lambda _: None)


def test_a_wan_pipeline_that_is_not_ti2v_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"expand_timesteps": true', '"expand_timesteps": false'))
    with pytest.raises(CheckpointLayoutError, match="not TI2V"):
        _engine(folder).load(lambda _: None)


def test_a_start_image_is_fitted_and_garbage_is_refused(tmp_path: Path) -> None:
    picture, garbage = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGBA", (100, 37), "red").save(picture)
    garbage.write_bytes(b"no image")
    fitted = start_image(SMALL.model_copy(update={"image": picture}))
    assert (fitted.size, fitted.mode) == ((64, 64), "RGB")
    with pytest.raises(UserInputError, match="can't be read"):
        start_image(SMALL.model_copy(update={"image": garbage}))


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
