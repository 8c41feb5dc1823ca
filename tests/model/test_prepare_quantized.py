"""Checkpoints that were prepared in int8 and fp8: bit for bit what quantizing after a load gives, for fewer bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from tests.model.prepared import METHODS, as_asked
from tests.model.test_direct_loader import CPU, contents
from tests.model.test_prepare import prepared, state_of
from tests.model.tiny_transformer import require_fp8
from wan22core.errors import CheckpointLayoutError, UnsupportedQuantizationError, UserInputError
from wan22core.model import quantize
from wan22core.model.architecture import SHAPES
from wan22core.model.direct_loader import kept_in_fp32
from wan22core.model.engine import WanEngine
from wan22core.model.integrity import check_checkpoint, require_valid
from wan22core.model.layout import WEIGHT_STEMS, weight_files
from wan22core.model.loader import CLASSES, file_bytes, load_component
from wan22core.model.prepare import prepare
from wan22core.model.quantized_layers import held_precision, layers_of, put_layers
from wan22core.model.safetensors_header import read_header
from wan22core.planning import work
from wan22core.recipes import recipe
from wan22core.records import Progress
from wan22core.specs import Architecture, BenchmarkSpec, Loader, Placement, Precision
from wan22core.worker.stages import StageRunner

GIB = 2**30


@pytest.mark.parametrize("method", METHODS)
def test_a_load_is_quantizing_after_a_clean_load_to_the_bit(
    method: Precision, tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path]
) -> None:
    """Values, scales, dtypes and modules of both components; where the CPU has no products in fp8 it converts to it."""
    folder, spec = prepared_in(method), as_asked(method, method)
    clean = load_component("transformer", tiny_checkpoint, spec, CPU)
    if quantize.supported(CPU)[method] is None:
        quantize.put_in_force(clean, method, CPU, lambda _: None)
    else:
        put_layers(clean, layers_of(clean, method), CPU)
    found = load_component("transformer", folder, spec, CPU)
    assert contents(found) == contents(clean)
    assert str(found) == str(clean)
    for loader in Loader if method is Precision.INT8 else (Loader.DIRECT,):
        quantized = load_component("text_encoder", tiny_checkpoint, as_asked(method, method, loader), CPU)
        found = load_component("text_encoder", folder, spec, CPU)
        assert contents(found) == contents(quantized), loader
        assert str(found) == str(quantized)
        assert found.shared is found.encoder.embed_tokens
        assert held_precision(found) is method


@pytest.mark.parametrize("method", METHODS)
def test_a_load_reads_the_prepared_bytes_and_no_others(
    method: Precision, tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path]
) -> None:
    folder, before, after = prepared_in(method), file_bytes(tiny_checkpoint), file_bytes(prepared_in(method))
    for name in ("transformer", "text_encoder"):
        told: list[int] = []
        load_component(name, folder, as_asked(method, method), CPU, told.append)
        assert sum(told) == after[name]
    assert after["transformer"] < 0.29 * before["transformer"], "fp32 there, a byte a value here, norms in fp32"
    assert after["text_encoder"] < 0.53 * before["text_encoder"], "bf16 there"
    assert after["vae"] == before["vae"]


def test_a_run_finds_it_in_force(tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path]) -> None:
    """Nothing is quantized again, the row says so, the census proves it, and the latents are the same to the bit.

    Those of clean weights are made resident, those of prepared ones in blocks that are streamed.
    """
    resident = as_asked(Precision.INT8, Precision.INT8)
    latents, rows, censuses = [], [], []
    for checkpoint, spec in (tiny_checkpoint, resident), (prepared_in(Precision.INT8), streamed(resident)):
        runner = StageRunner(lambda _: None, spec.model_dump(mode="json"))
        loaded = runner.run("load", {"checkpoint": checkpoint})
        rows.append(runner.run("quantize", {"precision": "int8"}))
        censuses.append({part.component: part for part in runner.run("encode", {}).census})
        runner.run("denoise", {})
        latents.append(runner._latents)
    assert torch.equal(*latents)
    assert [row.prepared for row in rows] == [False, True]
    assert rows[1].census == loaded.census, "of the prepared one: as it was loaded"
    computed, found = censuses
    assert {name: part.prepared for name, part in found.items()} == {
        "transformer": True, "text_encoder": True, "vae": False,
    }  # fmt: skip
    assert not any(part.prepared for part in computed.values())
    for name in computed:
        assert found[name].bytes_by_dtype == computed[name].bytes_by_dtype


def streamed(spec: BenchmarkSpec) -> BenchmarkSpec:
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"placement": Placement.BLOCK_STREAM})})


def test_fp8_computes_too(prepared_in: Callable[[Precision], Path]) -> None:
    """Every layer of both components; the embeddings are bf16 whatever the weights are."""
    require_fp8()
    engine = WanEngine(as_asked(Precision.FP8, Precision.FP8), prepared_in(Precision.FP8), "cpu")
    engine.load(lambda _: None)
    engine.quantize(Precision.FP8, lambda _: None)
    embeddings = engine.encode()
    assert embeddings[0].dtype is torch.bfloat16
    assert bool(torch.isfinite(engine.denoise(embeddings, None, lambda *_: None)).all())


def test_its_own_precision_is_the_prepared_one(prepared_in: Callable[[Precision], Path]) -> None:
    module = load_component("transformer", prepared_in(Precision.FP8), as_asked(Precision.NONE), CPU)
    assert held_precision(module) is Precision.FP8
    assert module.dtype is torch.bfloat16


def test_another_precision_is_refused_and_the_source_named(
    tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path]
) -> None:
    """In the class of errors that a run's next precision is tried on."""
    folder = prepared_in(Precision.INT8)
    for asked in (Precision.BF16, Precision.FP16, Precision.FP8):
        with pytest.raises(UnsupportedQuantizationError, match=f"no way back to {asked.value}") as raised:
            load_component("transformer", folder, as_asked(asked), CPU)
        assert f"{tiny_checkpoint} that it was prepared from, or ask for int8" in raised.value.next_action
    with pytest.raises(UnsupportedQuantizationError, match=r"The text_encoder in .* was prepared in int8"):
        load_component("text_encoder", folder, as_asked(Precision.INT8), CPU)


def test_a_source_that_is_gone_is_said_to_be(int8_copy: Path, tmp_path: Path) -> None:
    provenance = json.loads((int8_copy / "wan22.json").read_text()) | {"source_folder": str(tmp_path / "gone")}
    (int8_copy / "wan22.json").unlink()
    (int8_copy / "wan22.json").write_text(json.dumps(provenance))
    with pytest.raises(UnsupportedQuantizationError) as raised:
        load_component("transformer", int8_copy, as_asked(Precision.BF16), CPU)
    assert "gone that it was prepared from, which is not there any more" in raised.value.next_action


def test_a_device_that_has_no_such_products_is_refused(
    prepared_in: Callable[[Precision], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other layer is taken: the files hold one."""
    module = load_component("transformer", prepared_in(Precision.FP8), as_asked(Precision.FP8), CPU)

    def not_built(*_operands: Any, **_more: Any) -> torch.Tensor:
        raise NotImplementedError("row-wise scaling is not built")

    monkeypatch.setattr(torch, "_scaled_mm", not_built)
    with pytest.raises(
        UnsupportedQuantizationError, match=r"prepared in fp8, which can't be computed on cpu: .*not built"
    ):
        quantize.put_in_force(module, Precision.FP8, CPU, lambda _: None)


def test_the_stock_loader_refuses_it(prepared_in: Callable[[Precision], Path]) -> None:
    folder = prepared_in(Precision.INT8)
    stock = as_asked(Precision.INT8, Precision.INT8, Loader.STOCK)
    for name in ("transformer", "text_encoder"):
        with pytest.raises(CheckpointLayoutError, match=f"The {name} in .* prepared in int8, which from_pretrained"):
            load_component(name, folder, stock, CPU)
    with pytest.raises(ValueError, match="Unknown quantization type, got wan22"):
        WanTransformer3DModel.from_pretrained(str(folder / "transformer"))


def test_no_other_precision_is_prepared_from_it(
    tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path], tmp_path: Path
) -> None:
    """What it has in int8 is linked where int8 or its own is asked for; the VAE is never quantized."""
    folder = prepared_in(Precision.INT8)
    with pytest.raises(UnsupportedQuantizationError, match="prepared in int8, from which there is no way back to bf16"):
        prepared(folder, tmp_path / "bf16", {"transformer": "bf16", "text_encoder": "none", "vae": "none"})
    with pytest.raises(UserInputError, match="The VAE is not run in fp8"):
        prepared(tiny_checkpoint, tmp_path / "vae", {"transformer": "none", "text_encoder": "none", "vae": "fp8"})
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    prepared(folder, tmp_path / "more", {"transformer": "int8", "text_encoder": "none", "vae": "none"})
    for name in ("transformer", "text_encoder"):
        shards = weight_files(folder / name)
        assert [file.name for file in shards] == [file.name for file in weight_files(tmp_path / "more" / name)]
        assert all(file.samefile(tmp_path / "more" / name / file.name) for file in shards)


def test_it_is_a_whole_checkpoint(tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path]) -> None:
    """Hashes, index and shards agree; shards are those of the source."""
    for method in METHODS:
        found = check_checkpoint(prepared_in(method), hash_files=True)
        assert {each.verdict for each in found} == {"ok"}
        assert require_valid(prepared_in(method)) is Architecture.TINY
        for name in WEIGHT_STEMS:
            shards = [file.name for file in weight_files(prepared_in(method) / name)]
            assert shards == [file.name for file in weight_files(tiny_checkpoint / name)]


class Cancelled(Exception):
    """Raised by who watches the progress."""


def test_who_watches_can_end_it_and_nothing_is_left(tiny_checkpoint: Path, tmp_path: Path) -> None:
    before = state_of(tiny_checkpoint)

    def stop_in_the_middle(progress: Progress) -> None:
        if (progress.fraction or 0.0) > 0.2:
            raise Cancelled

    precisions = {"transformer": "int8", "text_encoder": "none", "vae": "none"}
    with pytest.raises(Cancelled):
        prepare(
            source=str(tiny_checkpoint), folder=str(tmp_path / "p"), precisions=precisions, report=stop_in_the_middle
        )
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert state_of(tiny_checkpoint) == before


def test_a_tensor_at_a_time(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """By the allocator's own record: the source's mapped shard, the result's, and some copies of one tensor."""
    with torch.profiler.profile(profile_memory=True) as profile:
        prepared(tiny_checkpoint, tmp_path / "p", {"transformer": "int8", "text_encoder": "none", "vae": "none"})
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    folders = (tiny_checkpoint / "transformer", tmp_path / "p" / "transformer")
    mapped, shard = (max(file.stat().st_size for file in weight_files(folder)) for folder in folders)
    largest, clean = 256 * 896, 2 * SHAPES[Architecture.TINY].parameters["transformer"]
    assert shard < max(accumulate(changes)) < mapped + shard + 12 * largest < 0.6 * clean


MODULES_ON_META: dict[str, Callable[[Any], nn.Module]] = {
    "transformer": lambda shapes: WanTransformer3DModel(**shapes.transformer),
    "text_encoder": lambda shapes: UMT5EncoderModel(UMT5Config(**shapes.text_encoder)),
    "vae": lambda shapes: AutoencoderKLWan(**shapes.vae),
}


@cache
def tensor_bytes(architecture: Architecture, component: str, precision: Precision) -> int:
    """Of a component's files as they are prepared, counted on its shapes."""
    kept = kept_in_fp32(CLASSES[component], torch.bfloat16)
    with torch.device("meta"):
        module = MODULES_ON_META[component](SHAPES[architecture])
    for name, parameter in module.named_parameters():
        if kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.bfloat16()
    if precision is not Precision.BF16:
        put_layers(module, layers_of(module, precision), torch.device("meta"))
    return sum(
        tensor.nbytes for tensor in {id(each): each for each in module.state_dict(keep_vars=True).values()}.values()
    )


def test_the_bytes_of_shapes_are_those_of_files(prepared_in: Callable[[Precision], Path]) -> None:
    for method in METHODS:
        for name in ("transformer", "text_encoder"):
            headers = [read_header(file) for file in weight_files(prepared_in(method) / name)]
            held = sum(tensor.nbytes for tensors in headers for tensor in tensors.values())
            assert held == tensor_bytes(Architecture.TINY, name, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_5b_model_is_read_in_few_bytes(method: Precision) -> None:
    """With the VAE in bf16, which all recipes but ``reference`` run: 16.7 GiB, and 11.5 with the text encoder too."""
    transformer = tensor_bytes(Architecture.TI2V_5B, "transformer", method)
    text, bf16_text = (tensor_bytes(Architecture.TI2V_5B, "text_encoder", each) for each in (method, Precision.BF16))
    vae = tensor_bytes(Architecture.TI2V_5B, "vae", Precision.BF16)
    assert 16.6 < (transformer + bf16_text + vae) / GIB < 16.7
    assert 11.3 < (transformer + text + vae) / GIB < 11.5
    assert (transformer, vae) == (work.transformer_bytes(method), work.vae_bytes(Precision.BF16))
    assert (text, bf16_text) == (work.text_encoder_bytes(method), work.text_encoder_bytes(Precision.BF16))


def test_the_vae_has_no_quantized_recipe() -> None:
    """It was taken for bf16 without a word."""
    document = recipe("fast").model_dump() | {"vae_precision": "int8"}
    with pytest.raises(ValueError, match=r"vae_precision\n.* should be .*'none'.* \[.*input_value='int8'"):
        type(recipe("fast")).model_validate(document)
