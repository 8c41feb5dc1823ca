"""One benchmark on one GPU at a time, whatever started it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from wan22core.errors import DeviceBusyError


@contextmanager
def device_lock(folder: Path, device_uuid: str | None) -> Iterator[None]:
    """Holds the lock file of a GPU; the operating system releases it when the process dies.

    The CPU has no lock: what else runs there can't be known, and the rows show the CPU use.
    Raises ``DeviceBusyError`` when another run holds it.
    """
    if device_uuid is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{device_uuid}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DeviceBusyError(
            f"Another wan22 run holds the GPU {device_uuid} (lock file {path}).",
            next_action="Wait for it to end, or choose another GPU with --device.",
        ) from error
    try:
        yield
    finally:
        lock.release()
