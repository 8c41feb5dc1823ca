"""One-off conversion of a checkpoint to the precision that it is run in, so that a load reads only the bytes it needs.

Nothing of the source is touched. What need not change is linked, not copied; what is cast keeps its names, shards and
index, so that the result is a checkpoint like any other. In int8 and fp8 a quantized layer's values and scales stand in
the shard that its weight stood in, under the names that the layer has in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan22core.errors import UserInputError
from wan22core.files import sha256, write_json
from wan22core.model.building import building, exclusively, provenance_of, settle, versions
from wan22core.model.integrity import require_valid, weights_id
from wan22core.model.layout import INDEX_FILE, PROVENANCE_FILE, WEIGHT_STEMS
from wan22core.model.stored_precision import config_entry
from wan22core.records import Progress
from wan22core.specs import Precision

if TYPE_CHECKING:
    import torch

    from wan22core.model.conversion import Conversion

Report = Callable[[Progress], None]
OnBytes = Callable[[int], None]


def prepare(*, source: str, folder: str, precisions: dict[str, str], report: Report) -> dict[str, Any]:
    """Writes the checkpoint ``source`` to ``folder`` in ``precisions``; returns its provenance. Runs in a worker child.

    ``precisions`` names one, or ``none`` for what is there, by component; the VAE is not quantized. Tensors are cast as
    a load in that precision casts them, those that it keeps in fp32 included; int8 and fp8 are quantized on the CPU
    from bf16, a tensor at a time, as they are after a load. At most one shard of the result is in memory. What
    ``report`` raises ends it, and nothing is left. A checkpoint that was prepared from the same source in the same
    precisions is taken as it is; nothing is ever replaced. Raises what ``require_valid`` raises for the source,
    ``UnsupportedQuantizationError`` where that is quantized and another precision is asked for, ``UserInputError`` for
    a folder in it or around it and for one that holds another checkpoint, ``InsufficientDiskSpaceError`` before
    anything is written, ``StorageError``, and ``CheckpointLayoutError`` where the folder holds something that wan22 did
    not make.
    """
    from wan22core.model.conversion import conversion_to

    origin, target = Path(source), Path(folder)
    _require_apart(origin, target)
    wanted = {
        "weights_source": provenance_of(origin).get("weights_source", "checkpoint"),
        "architecture": require_valid(origin).value,
        "prepared_from": weights_id(origin),
        "precisions": precisions,
    }
    with exclusively(target):
        if there := provenance_of(target):
            _require_same(there, wanted, target)
            return there
        components = [conversion_to(Precision(precisions[name]), origin / name) for name in WEIGHT_STEMS]
        return _convert(origin, target, components, wanted, report)


def _require_same(there: Mapping[str, Any], wanted: Mapping[str, Any], target: Path) -> None:
    if differs := next((key for key, value in wanted.items() if there.get(key) != value), None):
        raise UserInputError(
            f"{target} holds another checkpoint: its {differs} is {there.get(differs)}, not {wanted[differs]}.",
            next_action="Choose another folder with --out, or remove that one.",
        )


def _require_apart(origin: Path, target: Path) -> None:
    inner, outer = origin.resolve(), target.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserInputError(
            f"{target} lies in the checkpoint {origin} or around it, which is never touched.",
            next_action="Choose another folder with --out.",
        )


def _convert(
    origin: Path, target: Path, components: list[Conversion], wanted: dict[str, Any], report: Report
) -> dict[str, Any]:
    total_bytes = sum(file.stat().st_size for component in components for file in component.stored.by_file)
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        report(Progress(stage="prepare", fraction=done / total_bytes, bytes_done=done, bytes_total=total_bytes))

    with building(target, _needed_bytes(components, target), f"Preparing {origin.name}") as folder:
        for name in ("tokenizer", "scheduler"):
            (folder / name).mkdir()
            for file in (origin / name).iterdir():
                if file.is_file():
                    _link(file, folder / name / file.name)
        _link(origin / INDEX_FILE, folder / INDEX_FILE)
        hashes: dict[str, str] = {}
        for component in components:
            write = _cast_component if component.changes else _link_component
            hashes |= {f"{component.name}/{name}": digest for name, digest in write(component, folder, on_bytes)}
        provenance = {**wanted, "source_folder": str(origin), "versions": versions(), "sha256": hashes}
        write_json(folder / PROVENANCE_FILE, provenance)
    return provenance


def _needed_bytes(components: list[Conversion], target: Path) -> int:
    """What is written: the components that change, and on another file system those that can't be linked."""
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    device = existing.stat().st_dev
    needed = 0
    for component in components:
        if component.changes:
            needed += component.tensor_bytes
        else:
            sizes = (file.stat() for file in component.stored.by_file)
            needed += sum(found.st_size for found in sizes if found.st_dev != device)
    return needed


def _link_component(component: Conversion, folder: Path, on_bytes: OnBytes) -> Iterator[tuple[str, str]]:
    """The component as it is; name and sha256 of each of its weight files."""
    own = component.stored.folder
    (folder / own.name).mkdir()
    for file in (own / "config.json", *own.glob("*.safetensors.index.json")):
        _link(file, folder / own.name / file.name)
    for file in component.stored.by_file:
        _link(file, folder / own.name / file.name)
        yield file.name, sha256(file, on_bytes)


def _cast_component(component: Conversion, folder: Path, on_bytes: OnBytes) -> Iterator[tuple[str, str]]:
    """The component shard by shard as it is to be; name and sha256 of each of its weight files."""
    own, target = component.stored.folder, folder / component.name
    target.mkdir()
    write_json(target / "config.json", _config(own / "config.json", component))
    on_bytes(component.stored.header_bytes)
    weight_map: dict[str, str] = {}
    for file in component.stored.by_file:
        if names := _cast_file(file, target / file.name, component, on_bytes):
            weight_map |= dict.fromkeys(names, file.name)
            yield file.name, sha256(target / file.name)
    for index in own.glob("*.safetensors.index.json"):
        document = json.loads(index.read_bytes())
        metadata = {**document.get("metadata", {}), "total_size": component.tensor_bytes}
        write_json(target / index.name, {**document, "metadata": metadata, "weight_map": weight_map})


def _cast_file(file: Path, target: Path, component: Conversion, on_bytes: OnBytes) -> list[str]:
    """The names of the tensors in ``target``, which is not there when they are none."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    cast: dict[str, torch.Tensor] = {}
    with safe_open(file, framework="pt") as stored:
        for name, tensor in component.stored.by_file[file].items():
            cast |= component.written(name, stored.get_tensor(name).to(component.dtypes[name]))
            on_bytes(tensor.nbytes)
    if cast:
        save_file(cast, target, metadata={"format": "pt"})
        settle(target)
    return list(cast)


def _config(file: Path, component: Conversion) -> dict[str, Any]:
    """The config of a component; transformers takes the dtype to load in from there, diffusers has no such key."""
    config = dict(json.loads(file.read_bytes()))
    if "dtype" in config or "torch_dtype" in config:
        config = {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": component.main_dtype}
    return config if component.precision is None else config | config_entry(component.precision)


def _link(file: Path, target: Path) -> None:
    """A hard link to the file itself (a hub snapshot is made of symbolic ones), a copy where there can be none."""
    try:
        target.hardlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, target)
        settle(target)
