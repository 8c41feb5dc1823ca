"""Random checkpoints in the hub's own layout: seeded, written tensor by tensor, complete or not there at all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan22core.files import sha256, write_json
from wan22core.model.architecture import MODEL_INDEX, SHAPES, ModelShapes
from wan22core.model.building import building, exclusively, provenance_of, settle, versions
from wan22core.model.layout import INDEX_FILE, PROVENANCE_FILE, WEIGHT_STEMS
from wan22core.records import Progress
from wan22core.specs import Architecture

if TYPE_CHECKING:
    import torch

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class _Component:
    """How one component is named on disk, and its tensors' shapes."""

    name: str
    stem: str
    dtype: str
    shapes: Mapping[str, tuple[int, ...]]
    shard_bytes: int | None

    @property
    def item_bytes(self) -> int:
        return 2 if self.dtype == "bfloat16" else 4

    @property
    def total_bytes(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values()) * self.item_bytes


def random_checkpoint_folder(weights_path: Path, architecture: Architecture, seed: int) -> Path:
    """Where a made checkpoint of this architecture and seed lives."""
    return weights_path / f"{architecture.value}-random-seed{seed}"


def make_random(*, folder: str, architecture: str, seed: int, report: Report) -> dict[str, Any]:
    """Writes a seeded random checkpoint; returns its provenance. Runs in a worker child.

    A tensor's values depend on the seed, its component and its name only. At most one shard is in memory. An older made
    checkpoint under that name is replaced; what another process made while this one waited for it is taken as it is.
    Raises ``InsufficientDiskSpaceError`` (checked before anything is written), ``StorageError``, and
    ``CheckpointLayoutError`` where the folder holds something that wan22 did not make.
    """
    target = Path(folder)
    with exclusively(target) as made_meanwhile:
        if made_meanwhile:
            return provenance_of(target)
        return _make(target, Architecture(architecture), seed, report)


def _make(target: Path, architecture: Architecture, seed: int, report: Report) -> dict[str, Any]:
    shapes = SHAPES[architecture]
    components = _components(shapes)
    total_bytes = sum(component.total_bytes for component in components)
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        report(Progress(stage="make", fraction=done / total_bytes, bytes_done=done, bytes_total=total_bytes))

    with building(target, total_bytes, f"A random {architecture.value} checkpoint") as folder:
        hashes: dict[str, str] = {}
        for component in components:
            for file in _write_component(folder / component.name, component, seed, on_bytes):
                hashes[file.relative_to(folder).as_posix()] = sha256(file)
        _write_configs(folder, shapes)
        provenance = {
            "weights_source": "random",
            "architecture": architecture.value,
            "seed": seed,
            "versions": versions(),
            "sha256": hashes,
        }
        write_json(folder / PROVENANCE_FILE, provenance)
    return provenance


def _components(shapes: ModelShapes) -> list[_Component]:
    import torch
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        modules = {
            "transformer": WanTransformer3DModel(**shapes.transformer),
            "text_encoder": UMT5EncoderModel(UMT5Config(**shapes.text_encoder)),
            "vae": AutoencoderKLWan(**shapes.vae),
        }
    dtypes = {"transformer": "float32", "text_encoder": "bfloat16", "vae": "float32"}
    return [
        _Component(
            name=name,
            stem=stem,
            dtype=dtypes[name],
            shapes={key: tuple(parameter.shape) for key, parameter in modules[name].named_parameters()},
            shard_bytes=None if name == "vae" else shapes.shard_bytes,
        )
        for name, stem in WEIGHT_STEMS.items()
    ]


def _shards(component: _Component) -> list[list[str]]:
    """Tensor names by shard, in order; each shard within the limit unless one tensor alone is larger."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in component.shapes.items():
        tensor_bytes = math.prod(shape) * component.item_bytes
        if component.shard_bytes is not None and shards[-1] and size + tensor_bytes > component.shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor_bytes
    return shards


def _write_component(folder: Path, component: _Component, seed: int, on_bytes: Callable[[int], None]) -> Iterator[Path]:
    from safetensors.torch import save_file

    folder.mkdir()
    shards = _shards(component)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file = folder / f"{component.stem}{part}.safetensors"
        tensors = {}
        for name in names:
            tensors[name] = random_tensor(component.name, name, component.shapes[name], component.dtype, seed)
            on_bytes(tensors[name].nbytes)
        save_file(tensors, file, metadata={"format": "pt"})
        del tensors
        settle(file)
        weight_map |= dict.fromkeys(names, file.name)
        yield file
    if len(shards) > 1:
        index = {"metadata": {"total_size": component.total_bytes}, "weight_map": weight_map}
        write_json(folder / f"{component.stem}.safetensors.index.json", index)


def random_tensor(component: str, name: str, shape: tuple[int, ...], dtype: str, seed: int) -> torch.Tensor:
    """Seeded values: norms 1, biases 0, the rest normal with 1/sqrt(fan in), so that activations keep their scale."""
    import torch

    kind = getattr(torch, dtype)
    if name.endswith((".gamma", "norm.weight", "layer_norm.weight")) or (len(shape) == 1 and name.endswith("weight")):
        return torch.ones(shape, dtype=kind)
    if len(shape) == 1:
        return torch.zeros(shape, dtype=kind)
    digest = hashlib.sha256(f"{seed}/{component}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    fan_in = 1 if name.endswith(("shared.weight", "embed_tokens.weight")) else math.prod(shape[1:])
    return torch.empty(shape).normal_(0, fan_in**-0.5, generator=generator).to(kind)


def _write_configs(folder: Path, shapes: ModelShapes) -> None:
    import diffusers
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
    from transformers import UMT5Config

    with torch.device("meta"):
        WanTransformer3DModel(**shapes.transformer).save_config(folder / "transformer")
        AutoencoderKLWan(**shapes.vae).save_config(folder / "vae")
    UMT5Config(**shapes.text_encoder, architectures=["UMT5EncoderModel"], dtype="bfloat16").save_pretrained(
        folder / "text_encoder"
    )
    UniPCMultistepScheduler(**shapes.scheduler).save_pretrained(folder / "scheduler")
    _tokenizer().save_pretrained(folder / "tokenizer")
    write_json(folder / INDEX_FILE, {**MODEL_INDEX, "_diffusers_version": diffusers.__version__})


def _tokenizer() -> Any:
    """A character tokenizer of the class that the pipeline expects: random embeddings know no words anyway."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import T5TokenizerFast

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    vocabulary += [(chr(code), -5.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0)
