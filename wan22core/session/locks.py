"""One benchmark on one GPU at a time, whatever started it."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from wan22core.errors import DeviceBusyError


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
            lock.acquire(timeout=0)
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
