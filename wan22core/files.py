"""Files that are either old or new, never half: atomic writes, byte-identical backups, hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wan22core.errors import InsufficientDiskSpaceError, RunsFolderError, StorageError

_READ_CHUNK_BYTES = 4 * 1024 * 1024


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` (same suffix); moved over it, synced, when the block ends well.

    Raises ``InsufficientDiskSpaceError`` on a full disk and ``StorageError`` where the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise storage_error(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` as UTF-8, all or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Replace ``path`` by ``document``; a value JSON has no word for (NaN, infinity) is an error, not a file."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


class LineWriter:
    """Appends lines to a file that another process may have begun; what a kill left of a last line is dropped.

    Each call raises ``InsufficientDiskSpaceError`` or ``StorageError`` where the disk takes nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._naming_errors():
            self._stream = path.open("a+b")
            self._stream.seek(0)
            length = self._stream.read().rfind(b"\n") + 1
            self._stream.truncate(length)
        self.is_empty = length == 0
        """Whether nothing was there."""

    def write(self, line: str) -> None:
        """One line; it may stay in memory until ``flush``."""
        with self._naming_errors():
            self._stream.write(line.encode() + b"\n")

    def flush(self, *, sync: bool = False) -> None:
        """What was written survives this process; with ``sync`` a power failure too."""
        with self._naming_errors():
            self._stream.flush()
            if sync:
                os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Flushes and closes; harmless a second time."""
        with self._naming_errors():
            self._stream.close()

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self._path) from error


def whole_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that a ``LineWriter`` made; one that a kill cut off is left out."""
    return [line.decode() for line in path.read_bytes().split(b"\n")[:-1]]


def back_up(path: Path) -> Path:
    """A byte-identical copy beside ``path`` under a free name, verified by hash."""
    number = 1
    while (backup := path.with_name(f"{path.name}.{number}.bak")).exists():
        number += 1
    with atomic_path(backup) as temporary:
        shutil.copy2(path, temporary)
    if sha256(backup) != sha256(path):
        raise StorageError(
            f"The backup {backup} differs from {path}.", next_action="Check the disk; the original was not touched."
        )
    return backup


def sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file; ``on_bytes`` is told how many bytes each read brought."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_READ_CHUNK_BYTES):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def require_free_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raises ``InsufficientDiskSpaceError`` when the disk of ``folder`` (which need not exist yet) has less free."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise InsufficientDiskSpaceError(
            f"{purpose} needs {needed_bytes / 2**30:.1f} GiB at {folder}, and {free / 2**30:.1f} GiB are free there.",
            next_action="Free some space or choose another folder (WAN22_DATA_DIR, WAN22_WEIGHTS_DIR, WAN22_RUNS_DIR).",
            details={"needed_bytes": needed_bytes, "free_bytes": free},
        )


def require_writable_folder(folder: Path) -> None:
    """Creates ``folder`` and proves a file can be written there; raises ``RunsFolderError`` when it can't."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunsFolderError(
            f"The folder {folder} can't be written: {error.strerror or error}.",
            next_action="Choose another folder with --runs-dir or WAN22_RUNS_DIR.",
        ) from error


def storage_error(error: OSError, path: Path) -> StorageError | InsufficientDiskSpaceError:
    """The typed error of a failed write: a full disk, or a place that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InsufficientDiskSpaceError(
            f"The disk is full: {path} was not written.",
            next_action="Free some space and run again; what was stored before is whole.",
        )
    return StorageError(
        f"{path} could not be written: {error.strerror or error}.",
        next_action="Check the folder's permissions and mount, then run again.",
    )


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows can't open a directory, and syncs what may be written only
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
