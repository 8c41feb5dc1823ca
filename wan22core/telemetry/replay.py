"""A trace in the place of a GPU, a process and the time: what the real sampler reads when a run is replayed."""

from __future__ import annotations

import threading
from bisect import bisect_right

from wan22core.hardware.nvml import GpuReading
from wan22core.records import Sample
from wan22core.telemetry.process import ProcessReading
from wan22core.telemetry.sampler import Clock
from wan22core.telemetry.trace import Trace

_READ = set(GpuReading.model_fields) - {"processes"}  # a trace records no list of processes


class ReplayClock:
    """Time that goes from one sample of a trace to the next instead of passing."""

    def __init__(self, trace: Trace) -> None:
        self._times_s = [sample.t_s for sample in trace.samples]
        self._at = 0

    def monotonic(self) -> float:
        """Seconds on the trace's clock."""
        return self._times_s[self._at]

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Goes on to the next sample, however long the wait would be; after the last one ``stop`` is set."""
        del seconds
        if self._at + 1 == len(self._times_s):
            stop.set()
        else:
            self._at += 1
        return stop.is_set()


class ReplayProbe:
    """A ``GpuProbe`` and a source of process readings that give the trace's sample of the clock's moment."""

    def __init__(self, trace: Trace, clock: Clock) -> None:
        self._samples = trace.samples
        self._times_s = [sample.t_s for sample in trace.samples]
        self._clock = clock
        missing = (name for name in _READ if all(getattr(sample, name) is None for sample in trace.samples))
        self.reasons: dict[str, str] = dict.fromkeys(sorted(missing), "the trace does not hold it")

    def read(self, pid: int | None) -> GpuReading:
        """The GPU at the clock's moment; a trace is of one process, whatever its id was."""
        del pid
        return GpuReading(**self._now().model_dump(include=_READ))

    def process(self, pid: int) -> ProcessReading | None:
        """The process's memory at the clock's moment; its processor time is not in a trace, which holds percentages."""
        del pid
        rss_mib = self._now().rss_mib
        return ProcessReading(rss_mib=rss_mib) if rss_mib is not None else None

    def close(self) -> None:
        """There is nothing to let go."""

    def _now(self) -> Sample:
        """The last sample that is not later than now; before the first one nothing is known."""
        count = bisect_right(self._times_s, self._clock.monotonic())
        return self._samples[count - 1] if count else Sample(t_s=self._clock.monotonic())
