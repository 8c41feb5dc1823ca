"""A checkpoint folder that wan22 makes: whole under its name or not there at all, whatever kills the maker."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from wan22core import __version__
from wan22core.errors import CheckpointLayoutError
from wan22core.files import require_free_space, storage_error
from wan22core.model.layout import INDEX_FILE, PROVENANCE_FILE

_SMALL_FILES_BYTES = 1 << 20  # configs, tokenizer, headers, indexes
_LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


def is_complete(folder: Path) -> bool:
    """Whether a made checkpoint is there; the folder appears whole or not at all."""
    return (folder / PROVENANCE_FILE).is_file()


def provenance_of(folder: Path) -> dict[str, Any]:
    """What a made checkpoint says of itself; nothing where wan22 did not make it."""
    return dict(json.loads((folder / PROVENANCE_FILE).read_bytes())) if is_complete(folder) else {}


def source_of(folder: Path) -> str:
    """What a prepared checkpoint was made from, in words: where that was, and whether it is still there."""
    source = provenance_of(folder).get("source_folder")
    if source is None:
        return "the checkpoint that it was prepared from"
    gone = "" if (Path(source) / INDEX_FILE).is_file() else ", which is not there any more"
    return f"{source} that it was prepared from{gone}"


def versions() -> dict[str, str]:
    """What a checkpoint was made with."""
    return {"wan22": __version__} | {name: version(name) for name in _LIBRARIES}


@contextmanager
def exclusively(target: Path) -> Iterator[bool]:
    """Holds the lock on ``target``; whether another process made it while this one waited.

    Raises ``CheckpointLayoutError`` where the folder holds something that wan22 did not make, and names a full disk or
    a read-only folder by ``InsufficientDiskSpaceError`` or ``StorageError``, safetensors' own errors included.
    """
    with _naming_storage_errors(target):
        _require_replaceable(target)
        stamp = _stamp(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            yield _stamp(target) not in (None, stamp)


@contextmanager
def building(target: Path, needed_bytes: int, purpose: str) -> Iterator[Path]:
    """A sibling folder that becomes ``target`` when the block ends well; an older made ``target`` goes then.

    The caller holds the target's lock, so siblings that are there already belong to makers that died. Raises
    ``InsufficientDiskSpaceError`` before anything is written.
    """
    for stale in target.parent.glob(f".{target.name}.making-*"):
        shutil.rmtree(stale)
    require_free_space(target, needed_bytes + _SMALL_FILES_BYTES, purpose)
    folder = target.with_name(f".{target.name}.making-new")
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            target.rename(target.with_name(f".{target.name}.making-old"))
        folder.rename(target)
    finally:
        for leftover in target.parent.glob(f".{target.name}.making-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def settle(file: Path) -> None:
    """Brings a shard to the disk, readable by whom the umask allows: safetensors writes for the owner alone."""
    file.chmod(file.parent.stat().st_mode & 0o666)
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _require_replaceable(target: Path) -> None:
    """A make never replaces what it can't make again."""
    if target.exists() and not is_complete(target) and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointLayoutError(
            f"{target} holds something that wan22 did not make, so no checkpoint is written there.",
            next_action="Choose another folder, or remove this one yourself.",
        )


def _stamp(target: Path) -> int | None:
    """Tells one made checkpoint from its successor under the same name."""
    return (target / PROVENANCE_FILE).stat().st_mtime_ns if is_complete(target) else None


@contextmanager
def _naming_storage_errors(target: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        code = int(number[1])
        raise storage_error(OSError(code, os.strerror(code)), target) from error
    except OSError as error:
        raise storage_error(error, target) from error
