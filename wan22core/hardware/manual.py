"""What a person says about this machine's GPUs, for where no source can: kept beside the data, asked last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from wan22core.errors import UserInputError
from wan22core.files import write_json
from wan22core.records import GpuProfile, Reading, Record

_FILE = "hardware.json"
SOURCE = "manual"


class ManualEntries(Record):
    """The entries of one machine."""

    vram_mib: dict[str, int] = Field(default_factory=dict)
    """GPU name or index -> MiB; counts only where no source gives a figure."""


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
    entries = load_entries(data_dir)
    changed = entries.model_copy(update={"vram_mib": {**entries.vram_mib, gpu: mib}})
    write_json(data_dir / _FILE, changed.model_dump(mode="json"))
    return changed


def filled_up(gpus: list[GpuProfile], entries: ManualEntries) -> list[GpuProfile]:
    """The same GPUs; a memory that no source gave is taken from the entries. Where no GPU was found, they are it."""
    if not gpus:
        return [_only_said(index, name, mib) for index, (name, mib) in enumerate(entries.vram_mib.items())]
    return [_filled(gpu, entries.vram_mib) for gpu in gpus]


def _filled(gpu: GpuProfile, vram_mib: dict[str, int]) -> GpuProfile:
    said = vram_mib.get(str(gpu.index)) or vram_mib.get(gpu.name.value or "")
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
