"""The true architecture, random checkpoints in the hub's layout, and the engine on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from PIL import Image
from transformers import UMT5Config, UMT5EncoderModel

from wan22core.errors import (
    CheckpointLayoutError,
    CorruptWeightsError,
    UserInputError,
)
from wan22core.model import outputs
from wan22core.model.architecture import SHAPES, identify
from wan22core.model.engine import WanEngine
from wan22core.model.images import start_image
from wan22core.recipes import recipe
from wan22core.specs import Architecture, BenchmarkSpec, Workload

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
