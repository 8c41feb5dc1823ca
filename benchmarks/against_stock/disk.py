"""How fast a checkpoint's files are read: past the page cache by 1, 4, 16 threads, and through it, cold and warm."""

from __future__ import annotations

import mmap
import os
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from benchmarks.against_stock.records import DIRECT_READS, Ceiling, CeilingName
from wan22core import page_cache

PIECE_BYTES = 16 * 2**20


class Piece(NamedTuple):
    """Bytes that one read asks for."""

    path: Path
    offset: int


def disk_ceilings(checkpoint: Path, limit_bytes: int, samples: int) -> list[Ceiling]:
    """Bytes by second of reading the first ``limit_bytes`` of the safetensors under ``checkpoint``."""
    pieces = pieces_of(sorted(checkpoint.rglob("*.safetensors")), limit_bytes)
    what = f"the first {len(pieces)} pieces of {PIECE_BYTES // 2**20} MiB of the checkpoint"
    direct = [_direct(name, threads, pieces, what, samples) for threads, name in DIRECT_READS.items()]
    return [*direct, _cold(pieces, what, samples), _warm(pieces, what, samples)]


def pieces_of(files: Sequence[Path], limit_bytes: int) -> list[Piece]:
    """The files from the first on, in pieces; the last piece of a file may end with it."""
    every = [Piece(path, offset) for path in files for offset in range(0, path.stat().st_size, PIECE_BYTES)]
    return every[: max(1, limit_bytes // PIECE_BYTES)]


def _direct(name: CeilingName, threads: int, pieces: list[Piece], what: str, samples: int) -> Ceiling:
    what = f"{what}, O_DIRECT, {threads} threads"
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return Ceiling(name=name, what=what, reason="this system has no O_DIRECT")
    try:
        found = [rate(pieces, threads, flag) for _ in range(samples)]
    except OSError as error:
        return Ceiling(name=name, what=what, reason=f"the file system refuses O_DIRECT: {error.strerror}")
    return Ceiling(name=name, what=what, samples=found)


def _cold(pieces: list[Piece], what: str, samples: int) -> Ceiling:
    found = []
    for _ in range(samples):
        reasons = [page_cache.empty(path) for path in {piece.path for piece in pieces}]
        if (reason := next(filter(None, reasons), None)) is not None:
            return Ceiling(name=CeilingName.DISK_COLD, what=what, reason=reason)
        found.append(rate(pieces, 1))
    return Ceiling(name=CeilingName.DISK_COLD, what=f"{what}, through the page cache", samples=found)


def _warm(pieces: list[Piece], what: str, samples: int) -> Ceiling:
    rate(pieces, 1)
    found = [rate(pieces, 1) for _ in range(samples)]
    return Ceiling(name=CeilingName.DISK_WARM, what=f"{what}, from the page cache", samples=found)


def rate(pieces: Sequence[Piece], threads: int, flags: int = 0) -> float:
    """Bytes by second of one pass over ``pieces``; raises ``OSError`` for a file that can't be read so."""
    todo: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    for piece in pieces:
        todo.put(piece)
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(future.result() for future in [pool.submit(_read, todo, flags) for _ in range(threads)])
    return total / (time.perf_counter() - began)


def _read(todo: queue.SimpleQueue[Piece], flags: int) -> int:
    """One thread's share; its buffer stands on a page's edge, as O_DIRECT wants it."""
    total = 0
    opened: dict[Path, FileIO] = {}
    with mmap.mmap(-1, PIECE_BYTES) as buffer, ExitStack() as closing:
        while True:
            try:
                piece = todo.get_nowait()
            except queue.Empty:
                return total
            if piece.path not in opened:
                number = os.open(piece.path, os.O_RDONLY | flags | getattr(os, "O_BINARY", 0))
                opened[piece.path] = closing.enter_context(FileIO(number, "rb"))
            opened[piece.path].seek(piece.offset)
            total += opened[piece.path].readinto(buffer)
