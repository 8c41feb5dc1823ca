"""Quantized checkpoints whose values, scales and configs do not belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.prepared import as_asked, link
from tests.model.test_direct_loader import CPU, contents
from tests.model.test_prepare import prepared
from wan22core.errors import CorruptWeightsError
from wan22core.model.integrity import check_checkpoint, require_valid
from wan22core.model.layout import weight_files
from wan22core.model.loader import load_component
from wan22core.model.safetensors_header import read_header
from wan22core.specs import Precision


def replace_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    held = load_file(file)
    change(held)
    file.unlink()
    save_file(held, file)
    index = file.parent / "diffusion_pytorch_model.safetensors.index.json"
    document = json.loads(index.read_text())
    others = {name: shard for name, shard in document["weight_map"].items() if shard != file.name}
    index.unlink()
    index.write_text(json.dumps({"weight_map": others | dict.fromkeys(held, file.name)}))


QUERY = "blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: held.pop(f"{QUERY}.weight_scale"), f"the scales {QUERY}.weight_scale that do not belong"),
        (
            lambda held: held.update({f"{QUERY}.weight_scale": torch.ones(256)}),
            f"the scales {QUERY}.weight_scale that do not belong",
        ),
        (
            lambda held: held.update({f"{QUERY}.weight": torch.ones(256, 256).to(torch.float8_e4m3fn)}),
            f"holds {QUERY}.weight as F8_E4M3, and its config says int8",
        ),
    ],
    ids=["no scale", "misshapen scale", "another method"],
)
def test_scales_that_do_not_belong_to_their_weights_are_corrupt(int8_copy: Path, change: Any, words: str) -> None:
    file = next(each for each in weight_files(int8_copy / "transformer") if f"{QUERY}.weight" in read_header(each))
    replace_tensors(file, change)
    with pytest.raises(CorruptWeightsError, match=f"transformer .*{words}"):
        require_valid(int8_copy)


def test_a_config_without_its_entry_is_corrupt(int8_copy: Path) -> None:
    """The values would be loaded without their scales."""
    config = int8_copy / "transformer" / "config.json"
    document = json.loads(config.read_text())
    assert document.pop("quantization_config") == {"quant_method": "wan22", "precision": "int8"}
    config.unlink()
    config.write_text(json.dumps(document))
    with pytest.raises(CorruptWeightsError, match="its config names no quantization that wan22 knows"):
        require_valid(int8_copy)


def test_what_the_module_has_clean_may_not_be_quantized(int8_copy: Path) -> None:
    """The headers agree with the config, and not with the layers that this wan22 quantizes: the file is named."""

    def clean(held: dict[str, torch.Tensor]) -> None:
        held[f"{QUERY}.weight"] = held[f"{QUERY}.weight"].float()
        del held[f"{QUERY}.weight_scale"]

    file = next(each for each in weight_files(int8_copy / "transformer") if f"{QUERY}.weight" in read_header(each))
    replace_tensors(file, clean)
    require_valid(int8_copy)
    with pytest.raises(CorruptWeightsError, match=f"{file.name} holds {QUERY}.weight as F32 where .* torch.int8"):
        load_component("transformer", int8_copy, as_asked(Precision.INT8), CPU)


@pytest.mark.parametrize("both", [True, False], ids=["both names", "the other name"])
def test_a_table_is_quantized_once_under_whichever_name_it_is_stored(
    both: bool, tiny_checkpoint: Path, prepared_in: Callable[[Precision], Path], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source", copy_function=link))
    index = source / "text_encoder" / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    file = index.with_name(document["weight_map"]["shared.weight"])
    held = load_file(file)
    held["encoder.embed_tokens.weight"] = held["shared.weight"].clone()
    document["weight_map"]["encoder.embed_tokens.weight"] = file.name
    if not both:
        del held["shared.weight"], document["weight_map"]["shared.weight"]
    del document["metadata"]
    file.unlink()
    save_file(held, file)
    index.unlink()
    index.write_text(json.dumps(document))
    prepared(source, tmp_path / "out", {"transformer": "none", "text_encoder": "int8", "vae": "none"})
    assert {each.verdict for each in check_checkpoint(tmp_path / "out", hash_files=True)} == {"ok"}
    spec = as_asked(Precision.BF16, Precision.INT8)
    found = load_component("text_encoder", tmp_path / "out", spec, CPU)
    assert contents(found) == contents(load_component("text_encoder", prepared_in(Precision.INT8), spec, CPU))
