"""The direct loader beside ``from_pretrained``: the same modules bit for bit, and what it does with broken files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from wan22core.errors import CorruptWeightsError
from wan22core.model.direct_loader import load_direct, stored_tensors
from wan22core.model.engine import WanEngine
from wan22core.model.loader import CLASSES, MODULES, file_bytes, load_component
from wan22core.model.safetensors_header import Tensor, read_header
from wan22core.model.staging import CHUNK_BYTES, Chunk, Part, chunks_of, default_readers, read_chunks
from wan22core.recipes import recipe
from wan22core.specs import BenchmarkSpec, Loader, Precision, Workload

CPU = torch.device("cpu")
PICTURE = Workload(name="picture", width=32, height=32, frames=1, steps=1, guidance=1)
DIRECT_ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")


def spec(loader: Loader, precision: Precision, vae: Precision | None = None) -> BenchmarkSpec:
    precisions = dict.fromkeys(("transformer_precision", "text_encoder_precision"), precision)
    changes = {**precisions, "vae_precision": vae or precision, "loader": loader}
    return BenchmarkSpec(workload=PICTURE, recipe=recipe("reference").model_copy(update=changes))


def contents(module: Any) -> dict[str, tuple[torch.dtype, bytes]]:
    """Dtype and bytes of every parameter and buffer, those that no file holds included."""
    tensors = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    return {
        name: (tensor.dtype, tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP16, Precision.NONE])
@pytest.mark.parametrize("component", MODULES)
def test_the_result_is_that_of_from_pretrained(tiny_checkpoint: Path, component: str, precision: Precision) -> None:
    """Values, dtypes tensor by tensor, buffers, tied weights, mode and gradients; and every byte was reported once."""
    read: dict[Loader, int] = dict.fromkeys(Loader, 0)
    modules = {}
    for loader in Loader:

        def on_bytes(count: int, loader: Loader = loader) -> None:
            read[loader] += count

        modules[loader] = load_component(component, tiny_checkpoint, spec(loader, precision), CPU, on_bytes)
    stock, direct = modules[Loader.STOCK], modules[Loader.DIRECT]
    assert contents(direct) == contents(stock)
    assert direct.state_dict().keys() == stock.state_dict().keys()
    assert (type(direct), direct.training, direct.dtype) == (type(stock), False, stock.dtype)
    assert [p.requires_grad for p in direct.parameters()] == [p.requires_grad for p in stock.parameters()]
    assert {str(module) for module in modules.values()} == {str(stock)}
    assert read == dict.fromkeys(Loader, file_bytes(tiny_checkpoint)[component])
    if component == "text_encoder":
        assert direct.shared.weight is direct.encoder.embed_tokens.weight
        assert direct.config.to_dict() == stock.config.to_dict()
    else:
        assert dict(direct.config) == dict(stock.config)


def test_the_outputs_are_those_of_the_stock_loader(tiny_checkpoint: Path) -> None:
    """Embeddings, latents and frames, bit for bit; the tensors are compared above in every precision."""
    outputs = []
    for loader in Loader:
        engine = WanEngine(spec(loader, Precision.BF16, Precision.FP32), tiny_checkpoint, "cpu")
        engine.load(lambda _: None)
        embeddings = engine.encode()
        latents = engine.denoise(embeddings, None, lambda *_: None)
        outputs.append((embeddings[0], latents, torch.from_numpy(engine.decode(latents))))
    for stock, direct in zip(*outputs, strict=True):
        assert torch.equal(stock, direct)


@pytest.fixture
def text_encoder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the text encoder's folder by hard links; a test replaces files, it never writes into them."""
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    for file in (tiny_checkpoint / "text_encoder").iterdir():
        (folder / file.name).hardlink_to(file)
    return folder


def load_text_encoder(folder: Path) -> Any:
    return load_direct(CLASSES["text_encoder"], folder, torch.bfloat16, CPU, lambda _: None)


def replace(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors under the same name, and an index that knows them."""
    file.unlink()
    save_file(tensors, file)
    index = file.with_name("model.safetensors.index.json")
    document = json.loads(index.read_text())
    others = {name: shard for name, shard in document["weight_map"].items() if shard != file.name}
    document["weight_map"] = others | dict.fromkeys(tensors, file.name)
    index.unlink()
    index.write_text(json.dumps(document))


LAST = "model-00004-of-00004.safetensors"
NORM = "encoder.final_layer_norm.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: held.pop(NORM), f"lacks {NORM}: it is in none of .*{LAST}"),
        (lambda held: held.update(stranger=torch.ones(2)), f"{LAST} holds stranger, which UMT5EncoderModel does not"),
        (lambda held: held.update({NORM: torch.ones(7)}), rf"{LAST} holds {NORM} as \[7\] where .* asks for \[256\]"),
        (lambda held: held.update({"shared.weight": torch.ones(512, 256)}), "holds shared.weight, and so does"),
        (lambda held: held.update({NORM: torch.ones(256, dtype=torch.uint16)}), f"{LAST} holds {NORM} as U16"),
    ],
    ids=["missing", "unexpected", "misshapen", "twice", "unknown dtype"],
)
def test_keys_that_do_not_fit_name_their_shard(text_encoder: Path, change: Any, words: str) -> None:
    held = load_file(text_encoder / LAST)
    change(held)
    replace(text_encoder / LAST, held)
    with pytest.raises(CorruptWeightsError, match=words):
        load_text_encoder(text_encoder)


def test_a_shard_that_is_cut_off_is_named(text_encoder: Path) -> None:
    whole = (text_encoder / LAST).read_bytes()
    (text_encoder / LAST).unlink()
    (text_encoder / LAST).write_bytes(whole[:-1000])
    with pytest.raises(CorruptWeightsError, match=f"{LAST} truncated: 1000 of"):
        load_text_encoder(text_encoder)
    (text_encoder / LAST).unlink()
    with pytest.raises(CorruptWeightsError, match=f"{LAST} can't be read: No such file"):
        load_text_encoder(text_encoder)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    """The header was whole when it was read; one reader's error ends the load and comes out once."""
    save_file({"a": torch.ones(1000)}, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    os.truncate(tmp_path / "a.safetensors", header["a"].end - 100)
    chunks = list(chunks_of(tmp_path / "a.safetensors", header, {"a": torch.empty(1000)}, chunk_bytes=64))
    with pytest.raises(CorruptWeightsError, match=r"a\.safetensors ends at byte"):
        read_chunks(chunks, CPU, lambda _: None, readers=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("weights")]


@pytest.mark.parametrize("both", [True, False], ids=["both names", "the other name"])
def test_tied_weights_are_tied_under_whichever_name_they_are_stored(text_encoder: Path, both: bool) -> None:
    """As transformers does: an equal copy is dropped, and a copy alone stands for both."""
    first = next(file for file in sorted(text_encoder.glob("*.safetensors")) if "shared.weight" in read_header(file))
    held = load_file(first)
    held["encoder.embed_tokens.weight"] = held["shared.weight"].clone()
    if not both:
        del held["shared.weight"]
    replace(first, held)
    module = load_text_encoder(text_encoder)
    assert module.shared.weight is module.encoder.embed_tokens.weight
    assert torch.equal(module.shared.weight, held["encoder.embed_tokens.weight"])


class Cancelled(Exception):
    """Raised by who watches the progress."""


def test_who_watches_the_progress_can_end_the_load(tiny_checkpoint: Path) -> None:
    """Each reader ends after the chunk that it was told to end at; no thread is left."""
    told = []

    def on_bytes(count: int) -> None:
        told.append(count)
        if len(told) > 1:  # the first is the headers', before a thread was started
            raise Cancelled

    with pytest.raises(Cancelled):
        load_component("transformer", tiny_checkpoint, spec(Loader.DIRECT, Precision.BF16), CPU, on_bytes)
    assert len(told) <= 1 + default_readers(CPU)
    assert sum(told) < file_bytes(tiny_checkpoint)["transformer"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("weights")]


ONE_LOAD = """
import re, sys, torch
from pathlib import Path
from wan22core.model.direct_loader import load_direct
from wan22core.model.loader import CLASSES

def status(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def load(folder):
    return load_direct(CLASSES[folder.name], folder, torch.bfloat16, torch.device("cpu"), lambda _: None)

load(Path(sys.argv[1]))  # what libraries need for themselves
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
module = load(Path(sys.argv[1]))
print(status("VmHWM") - before, sum(p.nbytes for p in module.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
def test_memory_is_the_tensors_and_the_ring(tiny_checkpoint: Path) -> None:
    """No copy of the files beside them: 116 MiB in fp32 become 58 in bf16."""
    command = [sys.executable, "-c", ONE_LOAD, str(tiny_checkpoint / "transformer")]
    grown, final = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    ring = default_readers(CPU) * CHUNK_BYTES
    assert 0 < grown < final + ring + 16 * 2**20
    assert final + ring + 16 * 2**20 < file_bytes(tiny_checkpoint)["transformer"] + final


_STORED = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.int64])
_SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(tensors=st.lists(st.tuples(_SHAPES, _STORED), min_size=1, max_size=8), chunk_bytes=st.integers(8, 200))
def test_chunks_bring_every_element_once(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[tuple[tuple[int, ...], torch.dtype]], chunk_bytes: int
) -> None:
    """Whatever dtypes stand beside each other: no chunk is too long, parts are aligned, the values arrive."""
    file = tmp_path_factory.mktemp("chunks") / "a.safetensors"
    numbers = {f"t{number}": torch.randint(0, 100, shape).to(dtype) for number, (shape, dtype) in enumerate(tensors)}
    save_file(numbers, file)
    targets = {name: torch.full_like(tensor, 111) for name, tensor in numbers.items()}
    chunks = list(chunks_of(file, read_header(file), targets, chunk_bytes))
    assert max((chunk.nbytes for chunk in chunks), default=0) <= chunk_bytes
    assert not any(part.offset % part.dtype.itemsize for chunk in chunks for part in chunk.parts)
    told: list[int] = []
    read_chunks(chunks, CPU, told.append, readers=2)
    assert sum(told) == sum(tensor.nbytes for tensor in numbers.values())
    assert all(torch.equal(targets[name], tensor) for name, tensor in numbers.items())


def test_casts_are_torchs(tmp_path: Path) -> None:
    """Infinity, NaN, subnormals and what rounds to even, from fp32 to bf16 and fp16."""
    values = torch.tensor([1.0, -0.0, torch.inf, torch.nan, 1e-42, 65520.0, 1.00390625, 3.4e38])
    save_file({"a": values}, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    for dtype in (torch.bfloat16, torch.float16):
        target = torch.empty(8, dtype=dtype)
        read_chunks(list(chunks_of(tmp_path / "a.safetensors", header, {"a": target})), CPU, lambda _: None)
        assert target.view(torch.int16).tolist() == values.to(dtype).view(torch.int16).tolist()


def test_the_checkpoints_own_dtype_is_that_of_most_elements(tmp_path: Path) -> None:
    """A bf16 checkpoint keeps some tensors in fp32, and integers are no working precision."""
    folder = tmp_path / "vae"
    folder.mkdir()
    held = {"a": torch.ones(9, dtype=torch.bfloat16), "b": torch.ones(8), "c": torch.ones(99, dtype=torch.int8)}
    save_file(held, folder / "diffusion_pytorch_model.safetensors")
    save_file({"d": torch.ones(99)}, folder / "another.safetensors")
    assert stored_tensors(folder).own_dtype is torch.bfloat16
    assert stored_tensors(folder).all["a"] == Tensor("BF16", (9,), *_span(folder, "a"))


def _span(folder: Path, name: str) -> tuple[int, int]:
    data = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    return 8 + length + begin, 8 + length + end


@pytest.mark.gpu
@DIRECT_ON_CUDA
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP16, Precision.NONE])
@pytest.mark.parametrize("component", MODULES)
def test_on_cuda_too(tiny_checkpoint: Path, component: str, precision: Precision) -> None:
    device = torch.device("cuda:0")
    stock, direct = (load_component(component, tiny_checkpoint, spec(loader, precision), device) for loader in Loader)
    assert contents(direct) == contents(stock)
    assert {tensor.device for tensor in [*direct.parameters(), *direct.buffers()]} == {device}


def test_a_chunk_is_as_long_as_its_parts() -> None:
    chunk = Chunk(Path("a"), 0)
    assert chunk.nbytes == 0
    chunk.parts.append(Part(4, torch.float32, torch.empty(3)))
    assert chunk.nbytes == 16
