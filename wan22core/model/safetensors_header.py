"""What a safetensors file says it holds, held against the bytes that are there. Reads the header only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the format's own bound
_GIT_LFS_POINTER = b"version https://git-lfs"
_ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip


class HeaderError(Exception):
    """The file is no whole safetensors file; the message says why."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as a header describes it: its dtype by the format's name, and the half-open span of its file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises ``HeaderError`` when the file is truncated, too long, or its tensors overlap, leave holes or don't fit their
    shapes, and ``OSError`` when it can't be read. Format: the README of huggingface/safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_LENGTH_BYTES)
        if _GIT_LFS_POINTER.startswith(start) and start:
            raise HeaderError("is a Git LFS pointer, not the file itself: run git lfs pull, or download it")
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH_BYTES:
            raise HeaderError(f"holds {size} bytes: too short for a safetensors file")
        if length > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise HeaderError(
                f"its header should have {length} bytes and the file has {size}: truncated or no safetensors"
            )
        raw = stream.read(length)
    tensors = _parse(raw, _LENGTH_BYTES + length)
    _require_gapless(tensors, _LENGTH_BYTES + length, size)
    return tensors


def parse_json(raw: bytes | str) -> Any:
    """JSON in which a key may not stand twice in one object; ``ValueError`` otherwise."""
    return json.loads(raw, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands there twice")
        found[key] = value
    return found


def _parse(raw: bytes, data_begin: int) -> dict[str, Tensor]:
    try:
        document = parse_json(raw)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header can't be parsed: {error}") from error
    if not isinstance(document, dict):
        raise HeaderError("its header is no JSON object")
    return {name: _tensor(name, entry, data_begin) for name, entry in document.items() if name != "__metadata__"}


def _tensor(name: str, entry: Any, data_begin: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise HeaderError(f"the entry of {name} is malformed") from error
    if dtype not in _ITEM_BITS:
        raise HeaderError(f"{name} has the unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(_is_count(value) for value in [*shape, begin, end]):
        raise HeaderError(f"the entry of {name} is malformed")
    if (end - begin) * 8 != math.prod(shape) * _ITEM_BITS[dtype]:
        raise HeaderError(f"{name} has {end - begin} bytes, which does not fit {dtype} {shape}")
    return Tensor(dtype, tuple(shape), data_begin + begin, data_begin + end)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require_gapless(tensors: dict[str, Tensor], data_begin: int, file_bytes: int) -> None:
    """The tensors' bytes must fill the file exactly from the header's end, one after the other."""
    position = data_begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            what = "overlaps what stands before it" if tensor.begin < position else "leaves a hole before it"
            raise HeaderError(f"{name} {what}")
        position = tensor.end
    if position > file_bytes:
        raise HeaderError(f"truncated: {position - file_bytes} of {position - data_begin} data bytes are missing")
    if position < file_bytes:
        raise HeaderError(f"{file_bytes - position} bytes follow after the last tensor")
