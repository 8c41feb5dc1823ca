"""The worker seen from outside by psutil: resident memory and processor time."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from pydantic import BaseModel, ConfigDict

_MIB = 2**20
_GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class ProcessReading(BaseModel):
    """One look at a live process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rss_mib: float
    cpu_s: float | None = None
    """Processor seconds since it started, all threads, user and system; None where only the memory is known."""


ReadProcess = Callable[[int], ProcessReading | None]
"""What the sampler asks for a process's state by its id; None for a process that is gone."""


class PsutilReader:
    """A process of this machine; psutil's handle is kept, so that a read costs microseconds."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    def __call__(self, pid: int) -> ProcessReading | None:
        """The state now. A process that died and was not waited for yet reads as zero bytes, so it counts as gone."""
        try:
            if self._process is None or self._process.pid != pid:
                self._process = psutil.Process(pid)
            with self._process.oneshot():
                if self._process.status() in _GONE:
                    return None
                times, memory = self._process.cpu_times(), self._process.memory_info()
        except psutil.Error:  # it died between two samples: there is nothing to read, and the worker's own end says why
            self._process = None
            return None
        return ProcessReading(rss_mib=memory.rss / _MIB, cpu_s=times.user + times.system)
