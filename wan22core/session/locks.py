"""One benchmark on one GPU at a time, whatever started it."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from wan22core.errors import DeviceBusyError

_LOOK_S = 0.2
"""``held_gpus`` takes a lock for an instant to see whether it is free: so long is it waited for."""


class DeviceLock:
    """The lock file of a GPU; the operating system releases it when the process dies.

    The CPU has no lock: what else runs there can't be known, and the rows show the CPU use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: FileLock | None = None

    def acquire(self, device_uuid: str) -> None:
        """Raises ``DeviceBusyError`` when another run holds the GPU."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"gpu-{device_uuid}.lock"
        lock = FileLock(path)
        try:
            lock.acquire(timeout=_LOOK_S, poll_interval=_LOOK_S / 10)
        except Timeout as error:
            raise DeviceBusyError(
                f"Another wan22 run holds the GPU {device_uuid} (lock file {path}).",
                next_action="Wait for it to end, or choose another GPU with --device.",
            ) from error
        self._held = lock

    def release(self) -> None:
        """Frees the GPU, if it is held."""
        if self._held is not None:
            self._held.release()
            self._held = None


def held_gpus(folder: Path) -> list[str]:
    """The uuids of the GPUs that runs hold now, by the lock files in ``folder``."""
    return [path.stem.removeprefix("gpu-") for path in sorted(folder.glob("gpu-*.lock")) if _is_held(path)]


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
