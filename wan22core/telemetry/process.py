"""The worker seen from outside by psutil: resident memory and processor time."""

from __future__ import annotations

from typing import Protocol

import psutil
from pydantic import BaseModel, ConfigDict

_MIB = 2**20


class ProcessReading(BaseModel):
    """One look at a process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rss_mib: float | None = None
    cpu_s: float | None = None
    """Processor seconds since it started, all threads, user and system."""


class ProcessProbe(Protocol):
    """What the sampler asks for a process's state."""

    def read(self, pid: int | None) -> ProcessReading:
        """The state now; nothing but None for a process that is gone."""


class PsutilProbe:
    """A process of this machine; psutil's handle is kept, so that a read costs microseconds."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    def read(self, pid: int | None) -> ProcessReading:
        """The state now."""
        if pid is None:
            return ProcessReading()
        try:
            if self._process is None or self._process.pid != pid:
                self._process = psutil.Process(pid)
            with self._process.oneshot():
                times, memory = self._process.cpu_times(), self._process.memory_info()
        except psutil.Error:  # it died between two samples: there is nothing to read, and the worker's own end says why
            return ProcessReading()
        return ProcessReading(rss_mib=memory.rss / _MIB, cpu_s=times.user + times.system)
