"""Which kind of checkpoint was given: a diffusers folder of TI2V, or something else that has a name and a next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wan22core.errors import CheckpointLayoutError, CorruptWeightsError, ModelNotFoundError
from wan22core.model.architecture import HUB_ID, MODEL_INDEX
from wan22core.model.safetensors_header import parse_json

INDEX_FILE = "model_index.json"
"""What makes a folder a diffusers checkpoint."""

PROVENANCE_FILE = "wan22.json"
"""Written last into a made checkpoint: what made it, and the sha256 of every weight file."""

WEIGHT_STEMS = {"transformer": "diffusion_pytorch_model", "text_encoder": "model", "vae": "diffusion_pytorch_model"}
"""The components with weights, and how their files are named."""

_PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
_PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_COMFY_FOLDERS = ("split_files", "diffusion_models", "text_encoders", "checkpoints", "unet")
_USE_THE_HUBS = f"Get the diffusers layout: hf download {HUB_ID} --local-dir DIR, then give DIR."


def read_model_index(folder: Path) -> dict[str, Any]:
    """The pipeline index of a TI2V checkpoint in the diffusers layout.

    Raises ``ModelNotFoundError`` where there is nothing, ``CheckpointLayoutError`` that names what else was given, and
    ``CorruptWeightsError`` for an index that can't be parsed.
    """
    if not folder.exists():
        raise ModelNotFoundError(
            f"There is no checkpoint at {folder}.",
            next_action="Give an existing folder; wan22 weights make makes one with random weights.",
        )
    if not (folder / INDEX_FILE).is_file():
        message, next_action = _what_else(folder)
        raise CheckpointLayoutError(message, next_action=next_action)
    try:
        index = parse_json((folder / INDEX_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptWeightsError(
            f"{folder / INDEX_FILE} can't be read: {error}.", next_action=_USE_THE_HUBS
        ) from error
    if (problem := _why_not_ti2v(index)) is not None:
        raise CheckpointLayoutError(f"{folder} {problem}, so it is not TI2V-5B.", next_action=_USE_THE_HUBS)
    return dict(index)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of the component in ``folder``: those that its index names, else the single one.

    Raises ``CorruptWeightsError`` where there are none, or an index that can't be understood.
    """
    single = folder / f"{WEIGHT_STEMS[folder.name]}.safetensors"
    index = single.with_name(f"{single.name}.index.json")
    if not index.exists():
        if single.is_file():
            return [single]
        raise CorruptWeightsError(f"There is neither {single} nor an index beside it.", next_action=_USE_THE_HUBS)
    try:
        return [folder / name for name in sorted(set(parse_json(index.read_bytes())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptWeightsError(f"{index} can't be understood: {error!r}.", next_action=_USE_THE_HUBS) from error


def _why_not_ti2v(index: Any) -> str | None:
    """What tells this pipeline index from TI2V's, None when nothing does."""
    if not isinstance(index, dict) or index.get("_class_name") not in _PIPELINES:
        name = index.get("_class_name") if isinstance(index, dict) else None
        return f"holds a pipeline of the class {name}"
    if index.get("transformer_2", [None, None]) != [None, None]:
        return "is a Wan pipeline with two transformers"
    if index.get("expand_timesteps") is not True:
        return "is a Wan pipeline without expand_timesteps"
    for component, expected in MODEL_INDEX.items():
        if not isinstance(expected, list) or component in ("transformer_2", "tokenizer"):
            continue  # the tokenizer has gone by several class names
        if index.get(component) != expected:
            return f"names {index.get(component)} as its {component} instead of {expected}"
    return None


def _what_else(path: Path) -> tuple[str, str]:
    """What stands at ``path`` instead of a diffusers folder, and the next step."""
    if path.is_file():
        return _what_file(path), _USE_THE_HUBS
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    suffixes = {entry.suffix for entry in entries}
    if not entries:
        return f"{path} is an empty folder.", f"{_USE_THE_HUBS} Or run wan22 weights make."
    if (path / "snapshots").is_dir():
        return (
            f"{path} is an entry of the hub's cache.",
            f"Give the folder of one revision under {path / 'snapshots'}, or the hub id.",
        )
    if any(entry.suffix in _PICKLES for entry in entries):
        return (
            f"{path} holds pickled weights (.pth): the vendor's own layout, which diffusers does not load.",
            _USE_THE_HUBS,
        )
    if ".gguf" in suffixes:
        return f"{path} holds GGUF files.", _USE_THE_HUBS
    if (path / "config.json").is_file():
        return f"{path} is one component of a checkpoint.", f"Give the folder above it: {path.parent}."
    if any((path / name).is_dir() for name in _COMFY_FOLDERS) or ".safetensors" in suffixes:
        return f"{path} holds single-file checkpoints as ComfyUI uses them.", _USE_THE_HUBS
    return f"{path} is a folder without {INDEX_FILE}: no diffusers checkpoint.", _USE_THE_HUBS


def _what_file(path: Path) -> str:
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic == b"GGUF" or path.suffix == ".gguf":
        return f"{path} is a GGUF file."
    if path.suffix == ".safetensors":
        return f"{path} is a single-file checkpoint."
    if path.suffix in _PICKLES:
        return f"{path} holds pickled weights, which are never loaded."
    return f"{path} is a file, not a checkpoint folder."
