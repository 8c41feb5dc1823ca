"""What a person says about this machine's GPUs: memories that no source can tell, and the GPU that ``auto`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from wan22core.errors import UnknownNameError, UserInputError
from wan22core.files import write_json
from wan22core.hardware.gpu_specs import normal_name
from wan22core.records import GpuProfile, Reading, Record

_FILE = "hardware.json"
SOURCE = "manual"


class ManualEntries(Record):
    """The entries of one machine."""

    vram_mib: dict[str, int] = Field(default_factory=dict)
    """GPU name or index -> MiB; counts only where no source gives a figure."""
    preferred_gpu: str | None = None
    """UUID of the GPU that ``auto`` takes, its name where no source gives a UUID; None takes torch's first."""


def load_entries(data_dir: Path) -> ManualEntries:
    """The entries; none where nobody made one. Raises ``UserInputError`` for a file that can't be understood."""
    path = data_dir / _FILE
    if not path.exists():
        return ManualEntries()
    try:
        return ManualEntries.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise UserInputError(
            f"{path} can't be understood.", next_action="Delete it, and make the entries again."
        ) from error


def set_vram(data_dir: Path, gpu: str, mib: int) -> ManualEntries:
    """Keeps the memory of a GPU that no source can tell."""
    return _changed(data_dir, vram_mib={**load_entries(data_dir).vram_mib, gpu: mib})


def prefer(data_dir: Path, asked: str, gpus: Sequence[GpuProfile]) -> str:
    """Keeps the GPU that ``auto`` takes, and returns what it is kept as: its UUID, or its name.

    ``asked`` is a name, an index or a UUID of one of ``gpus``; where there are none it is kept unchecked, and only an
    index is refused. Raises ``UnknownNameError`` that lists the GPUs there are.
    """
    if not gpus and asked.isdigit():
        raise UserInputError(
            f"No GPU is seen here, so there is none with the index {asked}.",
            next_action="Give its name or UUID, or see wan22 hardware for why none is seen.",
        )
    kept = asked
    if gpus:
        gpu = _chosen(gpus, asked)
        kept = gpu.uuid.value or gpu.name.value or asked
    _changed(data_dir, preferred_gpu=kept)
    return kept


def forget_preference(data_dir: Path) -> None:
    """``auto`` takes torch's first GPU again."""
    _changed(data_dir, preferred_gpu=None)


def preferred_among(gpus: Sequence[GpuProfile], preferred: str | None) -> GpuProfile | None:
    """The GPU that is kept as the preferred one, None where it is not among ``gpus`` or nobody prefers one."""
    return next((gpu for gpu in gpus if preferred is not None and is_called(preferred, gpu)), None)


def is_called(said: str, gpu: GpuProfile) -> bool:
    """``is_meant`` for a GPU that was detected."""
    return is_meant(said, gpu.name.value, gpu.uuid.value)


def is_meant(said: str, name: str | None, uuid: str | None) -> bool:
    """Whether a person who says ``said`` means the GPU of this name and UUID; everything that asks so asks this.

    A UUID is said whole, with or without ``GPU-``. Of a name vendor and brand don't matter, and words in front of what
    tells cards apart may be left out: ``4080 super``. Case never matters.
    """
    if uuid is not None and _bare_uuid(said) == _bare_uuid(uuid):
        return True
    words = (name or "").split()
    wanted = normal_name(said)
    return bool(wanted) and wanted in {normal_name(" ".join(words[start:])) for start in range(len(words))}


def _bare_uuid(uuid: str) -> str:
    return uuid.strip().casefold().removeprefix("gpu-")


def _chosen(gpus: Sequence[GpuProfile], asked: str) -> GpuProfile:
    """The GPU with that index, or that is called so."""
    found = [gpu for gpu in gpus if asked == str(gpu.index) or is_called(asked, gpu)]
    if len(found) == 1:
        return found[0]
    there = {f"{gpu.index} {gpu.name.value or 'unnamed'}": gpu for gpu in found or gpus}
    near = get_close_matches(asked, there, n=3, cutoff=0.0)
    raise UnknownNameError(
        f"{len(found) or 'No'} GPUs of this machine are called {asked!r}.",
        next_action=f"Give the index, the name or the UUID of one: {', '.join(near)}.",
    )


def _changed(data_dir: Path, **changes: Any) -> ManualEntries:
    changed = load_entries(data_dir).model_copy(update=changes)
    write_json(data_dir / _FILE, changed.model_dump(mode="json"))
    return changed


def filled_up(gpus: list[GpuProfile], entries: ManualEntries) -> list[GpuProfile]:
    """The same GPUs; a memory that no source gave is taken from the entries. Where no GPU was found, they are it."""
    if not gpus:
        return [_only_said(index, name, mib) for index, (name, mib) in enumerate(entries.vram_mib.items())]
    return [_filled(gpu, entries.vram_mib) for gpu in gpus]


def _filled(gpu: GpuProfile, vram_mib: dict[str, int]) -> GpuProfile:
    said = vram_mib.get(str(gpu.index)) or next((mib for name, mib in vram_mib.items() if is_called(name, gpu)), None)
    if gpu.vram_total_mib.value is not None or said is None:
        return gpu
    return gpu.model_copy(update={"vram_total_mib": Reading[int](value=said, source=SOURCE)})


def _only_said(index: int, name: str, mib: int) -> GpuProfile:
    fields = (field for field in GpuProfile.model_fields if field not in ("index", "state"))
    nobody = "nobody said it, and no source sees this GPU"
    values: dict[str, Any] = {field: Reading[Any].missing(SOURCE, nobody) for field in fields}
    values["name"] = Reading[str](value=name, source=SOURCE)
    values["vram_total_mib"] = Reading[int](value=mib, source=SOURCE)
    return GpuProfile(index=index, **values)
