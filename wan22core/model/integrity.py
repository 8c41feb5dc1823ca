"""Is this checkpoint whole? Headers against bytes, index against shards, hashes on request; nothing is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from wan22core.errors import CheckpointLayoutError, CorruptWeightsError
from wan22core.files import sha256
from wan22core.model.architecture import HUB_ID, SHAPES, identify
from wan22core.model.layout import INDEX_FILE, PROVENANCE_FILE, WEIGHT_STEMS, read_model_index
from wan22core.model.safetensors_header import HeaderError, Tensor, parse_json, read_header
from wan22core.model.stored_precision import is_scale, mismatch
from wan22core.records import WeightsRecord
from wan22core.specs import Architecture

_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
_TIED = {"encoder.embed_tokens.weight": "shared.weight"}  # one matrix that some versions store under both names
_VERSION_KEYS = frozenset({"_diffusers_version", "transformers_version", "_name_or_path"})
_SAMPLE_BYTES = 65_536
_BROKEN = f"Fetch or make it again: hf download {HUB_ID}, or wan22 weights make."

_FileState = Literal["ok", "missing", "corrupt", "unused"]


class FileVerdict(BaseModel):
    """What was found about one file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Relative to the checkpoint's folder."""
    verdict: _FileState
    """``unused`` files stand beside the checkpoint's own and are not read."""
    reason: str | None = None
    """What is wrong with it, or what is worth knowing."""


@dataclass
class _Inspection:
    """What one look at a checkpoint collects."""

    folder: Path
    verdicts: dict[str, FileVerdict] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, list[Path]] = field(default_factory=dict)
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def note(self, path: Path, verdict: _FileState, reason: str | None = None) -> None:
        relative = path.relative_to(self.folder).as_posix()
        self.verdicts[relative] = FileVerdict(path=relative, verdict=verdict, reason=reason)

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """The object in a JSON file; None, and a verdict, when there is none."""
        if not path.is_file():
            self.note(path, "missing")
            return None
        try:
            document = parse_json(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            self.note(path, "corrupt", f"can't be parsed: {error}")
            return None
        if not isinstance(document, dict):
            self.note(path, "corrupt", "is no JSON object")
            return None
        self.note(path, "ok")
        return document

    @property
    def broken(self) -> list[FileVerdict]:
        return [verdict for verdict in self.verdicts.values() if verdict.verdict in ("missing", "corrupt")]

    @property
    def architecture(self) -> Architecture | None:
        return identify(self.configs) if self.configs.keys() == WEIGHT_STEMS.keys() else None


def check_checkpoint(folder: Path, *, hash_files: bool = False) -> list[FileVerdict]:
    """A verdict on every file of a checkpoint. Reads headers and configs; with ``hash_files`` every byte.

    Raises ``ModelNotFoundError``, ``CheckpointLayoutError`` or ``CorruptWeightsError`` where there is no TI2V
    checkpoint whose files could be listed.
    """
    return list(_inspect(folder, hash_files=hash_files).verdicts.values())


def require_valid(folder: Path) -> Architecture:
    """The architecture of a whole checkpoint, headers and index verified.

    Raises ``CorruptWeightsError`` naming the broken files, ``CheckpointLayoutError`` for shapes other than those known,
    and what ``check_checkpoint`` raises.
    """
    return _require_valid(_inspect(folder, hash_files=False))


def weights_record(folder: Path, *, made: bool) -> WeightsRecord:
    """The record of a checkpoint that was verified just now; ``made`` says whether this run had to make it."""
    inspection = _inspect(folder, hash_files=False)
    architecture = _require_valid(inspection)
    return WeightsRecord(
        folder=str(folder),
        architecture=architecture.value,
        source="random" if inspection.provenance.get("weights_source") == "random" else "checkpoint",
        weights_id=_identity(inspection),
        transformer_bytes=sum(shard.stat().st_size for shard in inspection.shards["transformer"]),
        made=made,
    )


def weights_id(folder: Path) -> str:
    """A cheap, stable identity: configs without versions, and of each weight file its size and samples of its bytes.

    Two fine-tunes have the same names and sizes; they differ in the samples. The folder's own path does not matter.
    """
    return _identity(_inspect(folder, hash_files=False))


def _identity(inspection: _Inspection) -> str:
    digest = hashlib.sha256()
    for component in WEIGHT_STEMS:
        own = {key: value for key, value in inspection.configs[component].items() if key not in _VERSION_KEYS}
        digest.update(json.dumps([component, own], sort_keys=True).encode())
        for shard in inspection.shards[component]:
            digest.update(f"{shard.name} {shard.stat().st_size}".encode())
            for sample in _samples(shard):
                digest.update(sample)
    return digest.hexdigest()[:16]


def _samples(path: Path) -> Iterator[bytes]:
    """Bytes from the start (the header), the middle and the end of a file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        for position in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
            stream.seek(position)
            yield stream.read(_SAMPLE_BYTES)


def _require_valid(inspection: _Inspection) -> Architecture:
    if broken := inspection.broken:
        first = broken[0]
        more = f" ({len(broken) - 1} more)" if len(broken) > 1 else ""
        raise CorruptWeightsError(
            f"The checkpoint {inspection.folder} is not whole: {first.path} {first.reason or 'is missing'}{more}.",
            next_action=_BROKEN,
            details={"files": [verdict.model_dump() for verdict in broken]},
        )
    if inspection.architecture is None:
        raise CheckpointLayoutError(
            f"The shapes of {inspection.folder} are neither of {' nor of '.join(SHAPES)}.",
            next_action=(
                "It was made by another version of wan22: remove it and run wan22 weights make."
                if inspection.provenance
                else f"Use {HUB_ID} or a fine-tune of it with the same shapes."
            ),
        )
    return inspection.architecture


def _inspect(folder: Path, *, hash_files: bool) -> _Inspection:
    read_model_index(folder)
    found = _Inspection(folder)
    found.note(folder / INDEX_FILE, "ok")
    found.read_json(folder / "scheduler" / "scheduler_config.json")
    _inspect_tokenizer(found)
    for component, stem in WEIGHT_STEMS.items():
        config = found.read_json(folder / component / "config.json")
        if config is not None:
            found.configs[component] = config
        _inspect_weights(found, component, stem)
    if (folder / PROVENANCE_FILE).exists():
        found.provenance = found.read_json(folder / PROVENANCE_FILE) or {}
    if not found.broken and found.architecture is not None:
        _compare_tensors(found, SHAPES[found.architecture].parameters)
    if hash_files and not found.broken:
        _compare_hashes(found)
    return found


def _inspect_tokenizer(found: _Inspection) -> None:
    folder = found.folder / "tokenizer"
    found.read_json(folder / "tokenizer_config.json")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        found.note(folder / _TOKENIZER_FILES[0], "missing")
    elif (folder / _TOKENIZER_FILES[0]).is_file():
        found.read_json(folder / _TOKENIZER_FILES[0])


def _inspect_weights(found: _Inspection, component: str, stem: str) -> None:
    folder = found.folder / component
    single, index_file = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    tensors: dict[str, Tensor] = {}
    if index_file.exists():
        index = found.read_json(index_file)
        if index is not None:
            tensors = _inspect_shards(found, component, index_file, index)
    elif single.exists():
        found.shards[component] = [single]
        tensors = _inspect_file(found, single, None) or {}
    else:
        pickled = sorted(folder.glob("*.bin"))
        reason = f"only pickled weights are there ({pickled[0].name}), which are never loaded" if pickled else None
        found.note(single, "missing", reason)
    found.tensors[component] = tensors
    for file in sorted(folder.glob("*.safetensors")):
        if file not in found.shards.get(component, []):
            found.note(file, "unused", "the index does not name it" if index_file.exists() else None)


def _inspect_shards(
    found: _Inspection, component: str, index_file: Path, index: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The tensors of all shards; notes what index and shards disagree on."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(map(_is_file_name, weight_map.values())):
        found.note(index_file, "corrupt", "its weight_map does not map tensors to files beside it")
        return {}
    tensors: dict[str, Tensor] = {}
    found.shards[component] = [index_file.with_name(name) for name in sorted(set(weight_map.values()))]
    for shard in found.shards[component]:
        expected = {key for key, name in weight_map.items() if name == shard.name}
        tensors |= _inspect_file(found, shard, expected) or {}
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    held = sum(tensor.nbytes for tensor in tensors.values())
    if total is not None and total != held and tensors.keys() == weight_map.keys():
        found.note(index_file, "corrupt", f"says {total} bytes in all, and its shards hold {held}")
    return tensors


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and Path(value).name == value


def _inspect_file(found: _Inspection, file: Path, expected: set[str] | None) -> dict[str, Tensor] | None:
    """The tensors of one file; a verdict on it, and None when it is broken. ``expected`` is what the index names."""
    if not file.exists():
        found.note(file, "missing")
        return None
    try:
        tensors = read_header(file)
    except HeaderError as error:
        found.note(file, "corrupt", str(error))
        return None
    except OSError as error:
        found.note(file, "corrupt", f"can't be read: {error.strerror or error}")
        return None
    if expected is not None and (missing := sorted(expected - tensors.keys())):
        found.note(file, "corrupt", f"lacks {missing[0]} and {len(missing) - 1} more that the index places there")
        return None
    if expected is not None and (surplus := sorted(tensors.keys() - expected)):
        found.note(file, "corrupt", f"holds {surplus[0]} and {len(surplus) - 1} more that the index places elsewhere")
        return None
    found.note(file, "ok")
    return tensors


def _compare_tensors(found: _Inspection, parameters: Mapping[str, int]) -> None:
    for component, expected in parameters.items():
        tensors = found.tensors[component]
        own = [each for name, each in tensors.items() if _TIED.get(name) not in tensors and not is_scale(name)]
        if (held := sum(each.elements for each in own)) != expected:
            wrong: str | None = f"its files hold {held:,} parameters and its config asks for {expected:,}"
        else:
            wrong = mismatch(found.configs[component], tensors)
        if wrong is not None:
            found.note(found.folder / component, "corrupt", wrong)


def _compare_hashes(found: _Inspection) -> None:
    """Judges the weight files anew by their sha256, where one is on record."""
    recorded = found.provenance.get("sha256", {})
    for file in (shard for shards in found.shards.values() for shard in shards):
        expected = recorded.get(file.relative_to(found.folder).as_posix()) or _blob_hash(file)
        if expected is None:
            found.note(file, "ok", "no hash is on record for it")
        elif sha256(file) == expected:
            found.note(file, "ok", "sha256 as recorded")
        else:
            found.note(file, "corrupt", "its sha256 is not the recorded one")


def _blob_hash(file: Path) -> str | None:
    """The hub's cache names a large file's blob by its sha256, and links to it from the snapshot."""
    name = file.resolve().name if file.is_symlink() else ""
    return name if len(name) == 64 and not set(name) - set("0123456789abcdef") else None
