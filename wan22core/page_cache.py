"""What the page cache holds of files, and how it is made to hold nothing or all of them, without root.

A load from a cold cache is the disk's time and one from a warm cache the memory's: a row says which of them it is.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

COLD_UP_TO = 0.05
"""At most this share of the bytes is in the cache: cold. Headers, and what was sampled for an identity, stay below."""
WARM_FROM = 0.95
"""At least this share is: warm."""

_PROBES = 16
_PAGE_BYTES = 4096
_PIECE_BYTES = 16 * 2**20
_TRIES = 3  # pages that were read a moment ago now and then go only when asked again

State = Literal["cold", "warm", "unknown"]


class Cached(NamedTuple):
    """The share of files' bytes that the page cache holds, from 0 to 1; None with the reason where it can't be seen."""

    fraction: float | None
    reason: str | None = None

    @property
    def state(self) -> State:
        """``unknown`` where it can't be seen, and for what is neither cold nor warm."""
        return state_of(self.fraction)


def state_of(fraction: float | None) -> State:
    """What a cached share is called."""
    if fraction is None or COLD_UP_TO < fraction < WARM_FROM:
        return "unknown"
    return "cold" if fraction <= COLD_UP_TO else "warm"


def cached(files: Iterable[Path], limit_bytes: int | None = None) -> Cached:
    """The share of all ``files`` (of the first ``limit_bytes`` of each) that is cached, by 16 probes each."""
    held = total = 0.0
    for path in files:
        try:
            size = path.stat().st_size if limit_bytes is None else limit_bytes
            found = _probe(path, size)
        except OSError as error:
            return Cached(None, f"{path} can't be read: {error.strerror or error}")
        if found.fraction is None:
            return found
        held, total = held + found.fraction * size, total + size
    return Cached(held / total) if total else Cached(None, "there is nothing to read")


def empty(path: Path, size: int | None = None) -> str | None:
    """Makes the page cache give up a file (its first ``size`` bytes): why it may hold it still, None when seen not to.

    Pages that another process has mapped stay. Raises ``OSError`` for a file that can't be opened.
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system has no call that empties the page cache of a file"
    with path.open("rb", buffering=0) as stream:
        os.fsync(stream.fileno())  # what was not written yet can't be given up
        for _ in range(_TRIES):
            os.posix_fadvise(stream.fileno(), 0, size or 0, os.POSIX_FADV_DONTNEED)
            found = cached([path], size)
            if found.fraction is None or found.state == "cold":
                return found.reason
    return "the page cache did not give the file up"


def fill(files: Iterable[Path]) -> int:
    """Reads files from start to end, one after the other, so that the cache holds what fits; returns their bytes."""
    total = 0
    with mmap.mmap(-1, _PIECE_BYTES) as buffer:
        for path in files:
            with path.open("rb", buffering=0) as stream:
                while read := stream.readinto(buffer):
                    total += read
    return total


def _probe(path: Path, size: int) -> Cached:
    """Reads one page in each sixteenth with reads that refuse to wait for the disk: what comes was in the cache.

    A refused read brings its page in all the same, so each look is at other pages (a file of fewer than sixteen has one
    look at each), and readahead is off.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return Cached(None, "this system can't say whether the page cache gave the file up")
    pages = max(1, -(-size // _PAGE_BYTES))
    probes = min(_PROBES, pages)
    hits = 0
    with path.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for probe in range(probes):
            first, end = probe * pages // probes, (probe + 1) * pages // probes
            page = first + secrets.randbelow(end - first)
            try:
                os.preadv(stream.fileno(), [bytearray(_PAGE_BYTES)], page * _PAGE_BYTES, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                why = error.strerror
                return Cached(None, f"the file system can't say whether the page cache gave the file up: {why}")
            hits += 1
    return Cached(hits / probes)
