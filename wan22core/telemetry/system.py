"""The machine around the worker by psutil: processors, memory and the data folder's disk, as percentages."""

from __future__ import annotations

from pathlib import Path

import psutil

from wan22core.records.base import Record


class SystemReading(Record):
    """One look at the whole machine, 0 to 100; None where there was nothing to read."""

    cpu_percent: float | None = None
    """All processors together, since the reading before."""
    ram_percent: float | None = None
    """What is not available of the machine's memory; a container's own limit is not seen here."""
    disk_percent: float | None = None
    """Of the data folder's disk, as far as this user may fill it."""


class SystemReader:
    """Reads this machine at most once in ``interval_s``; not for use by two threads at once."""

    def __init__(self, folder: Path, *, interval_s: float = 1.0) -> None:
        self.reasons: dict[str, str] = {}
        """Why a quantity was missing, by field name, as last seen."""
        self._folder = folder
        self._interval_s = interval_s
        self._next_s = float("-inf")
        self._before: tuple[float, float] | None = None

    def __call__(self, t_s: float) -> SystemReading | None:
        """The state at ``t_s`` on the run's clock; None where the reading before is too fresh."""
        if t_s < self._next_s:
            return None
        self._next_s = t_s + self._interval_s
        return SystemReading(
            cpu_percent=self._cpu_percent(),
            ram_percent=psutil.virtual_memory().percent,
            disk_percent=self._disk_percent(),
        )

    def _cpu_percent(self) -> float | None:
        """Not ``psutil.cpu_percent``: that one remembers by thread, and samples are taken by two."""
        times = psutil.cpu_times()
        # user and nice hold the guests' time already
        total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        busy_s = total_s - times.idle - getattr(times, "iowait", 0.0)
        before, self._before = self._before, (busy_s, total_s)
        if before is None or total_s <= before[1]:
            self.reasons["cpu_percent"] = "the processors' times were not read twice"
            return None
        share = float((busy_s - before[0]) / (total_s - before[1]))
        return 100 * min(1.0, max(0.0, share))  # iowait may run backwards, by proc(5)

    def _disk_percent(self) -> float | None:
        try:
            return float(psutil.disk_usage(str(self._folder)).percent)
        except OSError as error:
            self.reasons["disk_percent"] = f"the disk of {self._folder} can't be asked: {error.strerror or error}"
            return None
