"""How fast the disk of the weights is read: whole files one after the other, as a load reads them.

A figure counts as the disk's only where the page cache gave up the files before, and that was seen; else it is the
cache's and is called warm. Reading in large pieces is an upper bound for a load, whose pages are faulted in.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from wan22core import page_cache
from wan22core.files import require_free_space, storage_error
from wan22core.records import Reading, Record

_GIB = 2**30
_PIECE_BYTES = 16 * 2**20
_SOURCE = "sequential read"
_UNASKED = "the cold read gave the figure"

Clock = Callable[[], float]


class DiskRate(Record):
    """What a sequential read measured."""

    path: str
    """The folder whose disk was read."""
    read_bytes: int
    """Bytes of one pass."""
    files: list[str]
    """Names of the files that were read; a temporary one is gone since."""
    cold_bytes_s: Reading[float]
    """Through the page cache, which held nothing of it."""
    direct_bytes_s: Reading[float]
    """Past the page cache (O_DIRECT)."""
    warm_bytes_s: Reading[float]
    """From the page cache; measured only where the cache could not be emptied, and never taken for the disk's."""


def disk_rate(
    folder: Path, *, file_bytes: int = _GIB, limit_bytes: int = 2 * _GIB, clock: Clock = time.perf_counter
) -> DiskRate:
    """Reads up to ``limit_bytes`` of the safetensors under ``folder``, or a temporary file of ``file_bytes``.

    The checkpoint's own files are read where they hold at least ``file_bytes``. Raises ``InsufficientDiskSpaceError``
    or ``StorageError`` where the temporary file can't be written.
    """
    with _spans(folder, file_bytes, limit_bytes) as spans:
        seen = [page_cache.empty(span.path, span.size) for span in spans]
        why_warm = next((reason for reason in seen if reason is not None), None)
        size, seconds = _read(spans, clock)
        through = Reading[float](value=size / seconds, source=_SOURCE)
        return DiskRate(
            path=str(folder),
            read_bytes=size,
            files=[span.path.name for span in spans],
            cold_bytes_s=through if why_warm is None else Reading[float].missing(_SOURCE, why_warm),
            direct_bytes_s=_direct(spans, clock),
            warm_bytes_s=Reading[float].missing(_SOURCE, _UNASKED) if why_warm is None else through,
        )


class _Span(NamedTuple):
    """The first ``size`` bytes of a file."""

    path: Path
    size: int


@contextmanager
def _spans(folder: Path, file_bytes: int, limit_bytes: int) -> Iterator[list[_Span]]:
    """The first of the largest files up to the limit; a temporary file where they hold too little."""
    found = (path for path in folder.rglob("*.safetensors") if path.is_file() and os.access(path, os.R_OK))
    files = [path for path in found if path.stat().st_size > 0]
    spans, left = [], limit_bytes
    for path in sorted(files, key=lambda each: each.stat().st_size, reverse=True):
        spans.append(_Span(path, min(left, path.stat().st_size)))
        left -= spans[-1].size
        if left == 0:
            break
    if limit_bytes - left >= file_bytes:
        yield spans
        return
    temporary = _random_file(folder, file_bytes)
    try:
        yield [_Span(temporary, file_bytes)]
    finally:
        temporary.unlink(missing_ok=True)


def _random_file(folder: Path, size: int) -> Path:
    """Random bytes: a file system or a disk that compresses would make zeros too fast."""
    require_free_space(folder, size, "Measuring the disk")
    path: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rate.", suffix=".bin", delete=False) as stream:
            path = Path(stream.name)
            for start in range(0, size, _PIECE_BYTES):
                stream.write(os.urandom(min(_PIECE_BYTES, size - start)))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if path is not None:
            path.unlink(missing_ok=True)
        raise storage_error(error, folder) from error
    return path


def _direct(spans: Sequence[_Span], clock: Clock) -> Reading[float]:
    flag = getattr(os, "O_DIRECT", None)
    source = "O_DIRECT read"
    if flag is None:
        return Reading[float].missing(source, "this system has no O_DIRECT")
    try:
        size, seconds = _read(spans, clock, flag)
    except OSError as error:
        return Reading[float].missing(source, f"the file system refuses O_DIRECT: {error.strerror}")
    return Reading[float](value=size / seconds, source=source)


def _read(spans: Sequence[_Span], clock: Clock, flags: int = 0) -> tuple[int, float]:
    """Bytes and seconds of one pass; the buffer stands on a page's edge, as O_DIRECT wants it."""
    total = 0
    with mmap.mmap(-1, _PIECE_BYTES) as buffer:
        began = clock()
        for span in spans:
            opened = os.open(span.path, os.O_RDONLY | flags | getattr(os, "O_BINARY", 0))
            with os.fdopen(opened, "rb", buffering=0) as stream:
                left = span.size
                while left > 0 and (read := stream.readinto(buffer)):
                    left, total = left - read, total + read
        return total, clock() - began
