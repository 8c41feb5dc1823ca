"""Where the components are: the same latents from every placement, tiles that do not show, nothing left behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from wan22core.errors import MissingOutputError, StageFailedError, UnsupportedQuantizationError
from wan22core.model.block_stream import BlockStream, HostCopy
from wan22core.model.embeddings import embeddings_path, load_embeddings, save_embeddings
from wan22core.model.engine import WanEngine
from wan22core.recipes import RECIPES, recipe
from wan22core.records import Progress
from wan22core.session.order import with_precision
from wan22core.specs import BenchmarkSpec, Loader, Placement, Precision, Recipe, Tiling, Workload
from wan22core.worker.messages import StageResult
from wan22core.worker.stages import StageRunner

SMALL = Workload(name="small", width=64, height=64, frames=5, steps=1)
CPU = torch.device("cpu")


def placed(placement: Placement, **more: Any) -> Recipe:
    return recipe("reference").model_copy(update={"placement": placement, **more})


def loaded(folder: Path, asked: Recipe, workload: Workload = SMALL) -> WanEngine:
    engine = WanEngine(BenchmarkSpec(workload=workload, recipe=asked), folder, "cpu")
    engine.load(lambda _: None)
    engine.quantize(asked.transformer_precision, lambda _: None)
    return engine


def latents_of(engine: WanEngine, embeddings: Any = None) -> torch.Tensor:
    """Of the engine's own embeddings, or of those that are given."""
    embeddings = embeddings or engine.encode()
    condition = engine.encode_image() if engine.workload.image_to_video else None
    return engine.denoise(embeddings, condition, lambda _index, _steps: None)


@pytest.fixture(scope="module", params=[False, True], ids=["t2v", "i2v"])
def resident(tiny_checkpoint: Path, request: pytest.FixtureRequest) -> tuple[Workload, torch.Tensor, Any]:
    """The workload, and what the reference makes of it."""
    workload = SMALL.model_copy(update={"image_to_video": request.param})
    engine = loaded(tiny_checkpoint, recipe("reference"), workload)
    latents = latents_of(engine)
    return workload, latents, engine.decode(latents)


@pytest.mark.parametrize("placement", [Placement.ENCODE_THEN_FREE, Placement.BLOCK_STREAM])
def test_a_placement_changes_no_bit(
    tiny_checkpoint: Path, resident: tuple[Workload, torch.Tensor, Any], placement: Placement
) -> None:
    """Latents and frames are the reference's, in the first video and in the next, whose parts come back."""
    workload, expected, frames = resident
    engine = loaded(tiny_checkpoint, placed(placement, loader=Loader.DIRECT), workload)
    for _ in range(1 if workload.image_to_video else 2):
        latents = latents_of(engine)
        assert torch.equal(latents, expected)
        assert np.array_equal(engine.decode(latents), frames)
        assert engine.make_room()
        brought = {part.component: part.bytes_read for part in engine.take_brought()}
        assert brought.keys() == {"text_encoder", "transformer", "vae"}
        assert [name for name, read in brought.items() if read] == ["text_encoder"]


@pytest.mark.parametrize("placement", [Placement.ENCODE_THEN_FREE, Placement.BLOCK_STREAM])
def test_an_encoded_prompt_needs_no_text_encoder(tiny_checkpoint: Path, placement: Placement) -> None:
    """It is in memory only while it is used: nothing refers to it afterwards, and the census still knows it."""
    engine = loaded(tiny_checkpoint, placed(placement, loader=Loader.DIRECT))
    assert "text_encoder" not in {part.component for part in engine.census()}
    seen: list[weakref.ref[Any]] = []
    original = engine._pipeline.encode_prompt

    def encode_prompt(**arguments: Any) -> Any:
        seen.append(weakref.ref(engine._pipeline.text_encoder))
        return original(**arguments)

    engine._pipeline.encode_prompt = encode_prompt
    engine.encode()
    gc.collect()
    assert [each() for each in seen] == [None]
    assert {part.component: part.parameters for part in engine.census()}["text_encoder"] == 42_749_696


def test_where_main_memory_is_short_the_transformer_is_read_anew(
    tiny_checkpoint: Path, resident: tuple[Workload, torch.Tensor, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each video reads it from its files, and quantizes it again; the result is the same."""
    workload, expected, _ = resident
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1_000_000))
    asked = placed(Placement.ENCODE_THEN_FREE, loader=Loader.DIRECT)
    engine = WanEngine(BenchmarkSpec(workload=workload, recipe=asked), tiny_checkpoint, "cpu")
    assert [part.component for part in engine.load(lambda _: None)] == ["tokenizer", "scheduler", "vae"]
    engine.quantize(asked.transformer_precision, lambda _: None)
    assert [part.component for part in engine.take_brought()] == ["transformer"]
    assert torch.equal(latents_of(engine), expected)
    assert {part.component for part in engine.take_brought() if part.bytes_read} == {"text_encoder", "transformer"}


def test_quantized_blocks_stream_as_they_compute_in_place(tiny_checkpoint: Path) -> None:
    """int8 weights and their scales are buffers and parameters of other dtypes: they travel like the rest."""
    int8 = {"transformer_precision": Precision.INT8, "loader": Loader.DIRECT}
    in_place, streamed = (
        latents_of(loaded(tiny_checkpoint, placed(each, **int8)))
        for each in (Placement.RESIDENT, Placement.BLOCK_STREAM)
    )
    assert torch.equal(in_place, streamed)


def tower(blocks: int) -> nn.Sequential:
    """Blocks of several dtypes and sizes, one tensor without dimensions."""
    torch.manual_seed(0)
    made = [
        nn.Sequential(nn.Linear(7 + n, 8 + n), nn.Tanh()).to(torch.float64 if n % 2 else None) for n in range(blocks)
    ]
    for block in made:
        block.register_buffer("scale", torch.tensor(1.5))
    return nn.Sequential(*made)


def through(blocks: nn.Sequential, order: list[int]) -> list[torch.Tensor]:
    results = []
    for index in order:
        weight = blocks[index][0].weight
        results.append(blocks[index](torch.ones(1, weight.shape[1], dtype=weight.dtype)))
    return results


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_every_order_of_blocks_is_right(blocks: int) -> None:
    """Round and round, backwards, one twice, after a release: each computes with its own weights."""
    plain, streamed = tower(blocks), tower(blocks)
    stream = BlockStream(list(streamed), CPU, pinned=True)
    order = [*range(blocks), *range(blocks), *reversed(range(blocks)), 0, 0, blocks - 1]
    for _ in range(2):
        assert all(map(torch.equal, through(plain, order), through(streamed, order)))
        stream.release()
    weights = zip(plain.state_dict().values(), streamed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) and a.dtype == b.dtype and a.shape == b.shape for a, b in weights)


def test_a_block_that_raises_leaves_its_weights_in_main_memory() -> None:
    """And the next forward is right."""
    plain, streamed = tower(3), tower(3)
    stream = BlockStream(list(streamed), CPU, pinned=False)
    with pytest.raises(RuntimeError):
        streamed[1](torch.ones(1, 1))
    stream.release()
    assert torch.equal(streamed[1][0].weight, plain[1][0].weight)
    assert all(map(torch.equal, through(plain, [0, 1, 2]), through(streamed, [0, 1, 2])))


def run_stage(runner: StageRunner, name: str, **arguments: Any) -> StageResult:
    return runner.run(name, arguments)


@pytest.mark.parametrize("image_to_video", [False, True], ids=["t2v", "i2v"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_verified_video(
    tiny_checkpoint: Path, tmp_path: Path, kept: Path, name: str, image_to_video: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage by stage as the worker runs it, in the first of its precisions that this device has.

    Uncompiled: ``test_speed.py`` compiles, which takes longer than all of this. One prompt is encoded for all.
    """
    monkeypatch.setenv("WAN22_DATA_DIR", str(kept))
    workload = SMALL.model_copy(update={"image_to_video": image_to_video})
    asked = recipe(name).model_copy(update={"compiled": False})
    spec = BenchmarkSpec(workload=workload, recipe=asked, device="cpu", cache_embeddings=True)
    refused = []
    for precision in (spec.recipe.transformer_precision, *spec.recipe.fallbacks):
        reports: list[Progress] = []
        runner = StageRunner(reports.append, with_precision(spec, precision).model_dump(mode="json"))
        run_stage(runner, "load", checkpoint=tiny_checkpoint)
        assert max(each.fraction or 0 for each in reports) == 1.0
        try:
            run_stage(runner, "quantize", precision=precision.value)
            break
        except UnsupportedQuantizationError:
            refused.append(precision)
    assert refused == ([Precision.FP16] if name == "fp16_accum" else []) or refused == [Precision.FP8]
    for stage in ("encode", *(["encode_image"] if image_to_video else []), "denoise", "decode"):
        run_stage(runner, stage)
    written = run_stage(runner, "write", path=tmp_path / "video.mp4")
    assert written.frames_produced == workload.frames


def test_the_load_names_what_a_stage_brought(tiny_checkpoint: Path) -> None:
    """The text encoder is read for the encode, the others come from main memory; tiles are told where there are any."""
    spec = BenchmarkSpec(workload=SMALL, recipe=recipe("low_8g").model_copy(update={"compiled": False}), device="cpu")
    runner = StageRunner(lambda _: None, spec.model_dump(mode="json"))
    first = run_stage(runner, "load", checkpoint=tiny_checkpoint)
    assert [part.component for part in first.components] == ["tokenizer", "scheduler", "transformer", "vae"]
    run_stage(runner, "quantize", precision="bf16")
    encoded = run_stage(runner, "encode")
    assert [(part.component, part.bytes_read > 0) for part in encoded.components] == [("text_encoder", True)]
    assert {part.component for part in encoded.census} == {"transformer", "text_encoder", "vae"}
    brought = {name: run_stage(runner, name).components for name in ("denoise", "decode")}
    assert {name: [part.component for part in parts] for name, parts in brought.items()} == {
        "denoise": ["transformer"],
        "decode": ["vae"],
    }


def test_kept_embeddings_are_read_and_the_row_says_so(tiny_checkpoint: Path) -> None:
    """The same tensors, and no text encoder is read for them; another prompt or precision has its own."""
    spec = BenchmarkSpec(workload=SMALL, recipe=placed(Placement.ENCODE_THEN_FREE), device="cpu", cache_embeddings=True)
    results = []
    for _ in range(2):
        runner = StageRunner(lambda _: None, spec.model_dump(mode="json"))
        run_stage(runner, "load", checkpoint=tiny_checkpoint)
        results.append((run_stage(runner, "encode"), runner._embeddings))
    (computed, expected), (read, found) = results
    assert (computed.from_cache, read.from_cache, read.components) == (False, True, [])
    assert all(map(torch.equal, expected, found))
    folder = Path("embeddings")
    other = spec.model_copy(update={"workload": SMALL.model_copy(update={"prompt": "A dog."})})
    fp32 = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"text_encoder_precision": Precision.FP32})})
    assert len({embeddings_path(folder, tiny_checkpoint, each) for each in (spec, other, fp32)}) == 3


def test_embeddings_come_back_as_they_were_and_garbage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    prompt = torch.randn(1, 4, 8).to(torch.bfloat16)
    save_embeddings(path, (prompt, None))
    read, negative = load_embeddings(path, "cpu")
    assert torch.equal(read, prompt)
    assert negative is None
    path.write_bytes(b"garbage")
    with pytest.raises(MissingOutputError, match="no embeddings"):
        load_embeddings(path, "cpu")


def test_stages_before_the_load_are_refused(tiny_checkpoint: Path) -> None:
    engine = WanEngine(BenchmarkSpec(workload=SMALL, recipe=recipe("fast")), tiny_checkpoint, "cpu")
    for call in (engine.encode, engine.encode_image, engine.census, engine.make_room, engine.take_brought):
        with pytest.raises(StageFailedError, match="not loaded"):
            call()


def test_older_documents_had_a_switch_for_tiles() -> None:
    """True is diffusers' own tiles, false none; a document without the field has none either."""
    document = recipe("reference").model_dump(mode="json")
    for value, expected in ((True, Tiling.DEFAULT), (False, Tiling.OFF), ("auto", Tiling.AUTO)):
        assert Recipe.model_validate({**document, "vae_tiling": value}).vae_tiling is expected
    del document["vae_tiling"]
    assert Recipe.model_validate(document).vae_tiling is Tiling.OFF


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_on_a_gpu_two_blocks_are_on_the_device_and_no_bit_changes() -> None:
    """Copies on their own stream, page-locked weights: the same results, and no more memory than the slots."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    blocks = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8)))
    values = torch.randn(64, 2048, device=device)
    plain = [nn.Linear(2048, 2048, device=device) for _ in blocks]
    for layer, block in zip(plain, blocks, strict=True):
        layer.load_state_dict(block.state_dict())
    with torch.no_grad():
        expected = nn.Sequential(*plain, *plain)(values)
        del plain, layer
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        stream = BlockStream(list(blocks), device, pinned=True)
        found = blocks(blocks(values))
        assert torch.cuda.memory_allocated() - before < 3 * 2048 * 2049 * 4
        assert torch.equal(found, expected)
        stream.release()
        assert {parameter.device.type for parameter in blocks.parameters()} == {"cpu"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_what_leaves_a_gpu_is_where_it_was() -> None:
    """The values in main memory are the ones from before, not copies, and the device's memory is free again."""
    layer = nn.Linear(1024, 1024)
    home, before = layer.weight.data_ptr(), torch.cuda.memory_allocated()
    copy = HostCopy(layer.parameters())
    copy.bring(torch.device("cuda"))
    assert (layer.weight.device.type, torch.cuda.memory_allocated() > before) == ("cuda", True)
    copy.leave()
    assert (layer.weight.data_ptr(), torch.cuda.memory_allocated()) == (home, before)
