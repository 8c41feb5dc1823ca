"""Samples the worker and its GPU from the parent at fixed deadlines, and says how well that went."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Literal, Protocol

from wan22core.hardware.nvml import GpuProbe, GpuReading
from wan22core.records import MemoryPeaks, Sample, Telemetry
from wan22core.statistics import integral
from wan22core.telemetry.process import ProcessProbe, PsutilProbe

_NO_GPU = "the run uses no GPU"
EnergySource = Literal["nvml_counter", "power_integral"]


class Clock(Protocol):
    """Time, and waiting for it."""

    def monotonic(self) -> float:
        """Seconds."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Waits; True when ``stop`` was set meanwhile."""


class RealClock:
    """This machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds)


class Sampler:
    """One thread in the parent. A deadline that is missed is counted and skipped: no burst, no spinning."""

    def __init__(
        self,
        *,
        interval_s: float,
        origin_s: float,
        gpu: GpuProbe | None = None,
        process: ProcessProbe | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.interval_s = interval_s
        self.gpu = gpu
        """The GPU to read; may be set before ``start``."""
        self._origin_s = origin_s
        self._process = process or PsutilProbe()
        self._clock = clock or RealClock()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._samples: list[Sample] = []
        self._pid: int | None = None
        self._cpu: tuple[float, float] | None = None
        self._foreign = False
        self._missed = 0
        self._failure: Exception | None = None

    def watch(self, pid: int | None) -> None:
        """The worker to look at from now on."""
        with self._lock:
            self._pid, self._cpu = pid, None

    def start(self) -> None:
        """Starts sampling."""
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends sampling; raises what a probe raised, if one did. Harmless when it was not started or has ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def sample_now(self) -> Sample:
        """One synchronous sample beside the paced ones."""
        with self._lock:
            return self._take()

    @property
    def samples(self) -> list[Sample]:
        """All samples so far, in order of time."""
        with self._lock:
            return list(self._samples)

    @property
    def foreign_process(self) -> bool | None:
        """Whether another process held a compute context on the GPU; None where no GPU was read."""
        return self._foreign if self.gpu is not None else None

    def telemetry(self) -> Telemetry:
        """What was sampled, how regularly, and the energy by the counter or else by the power."""
        samples = self.samples
        energy_j, source = energy(samples)
        reasons = dict(self.gpu.reasons) if self.gpu is not None else {"gpu": _NO_GPU}
        return Telemetry(
            requested_interval_s=self.interval_s,
            achieved_rate_hz=achieved_rate_hz(samples, float("-inf"), float("inf")),
            samples=len(samples),
            missed=self._missed,
            energy_j=energy_j,
            energy_source=source,
            reasons=reasons,
        )

    def _run(self) -> None:
        deadline = self._clock.monotonic()
        try:
            while not self._stop.is_set():
                with self._lock:
                    self._take()
                deadline += self.interval_s
                late_s = self._clock.monotonic() - deadline
                if late_s > 0:
                    skipped = int(late_s // self.interval_s) + 1
                    self._missed += skipped
                    deadline += skipped * self.interval_s
                if self._clock.wait(self._stop, deadline - self._clock.monotonic()):
                    return
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to: stop() raises it
            self._failure = error

    def _take(self) -> Sample:
        at = self._clock.monotonic()
        process = self._process.read(self._pid)
        gpu = self.gpu.read(self._pid) if self.gpu is not None else GpuReading()
        self._foreign = self._foreign or (
            gpu.gpu_process_mib is not None and any(pid != self._pid for pid in gpu.processes)
        )
        sample = Sample(
            t_s=at - self._origin_s,
            rss_mib=process.rss_mib,
            cpu_percent=self._cpu_percent(at, process.cpu_s),
            **gpu.model_dump(),
        )
        self._samples.append(sample)
        return sample

    def _cpu_percent(self, at: float, cpu_s: float | None) -> float | None:
        """Processor time by wall time since the sample before; None without one, or for a moment too short to tell."""
        if cpu_s is None:
            self._cpu = None
            return None
        before = self._cpu
        if before is not None and at - before[0] < self.interval_s / 2:
            return None
        self._cpu = (at, cpu_s)
        return 100 * (cpu_s - before[1]) / (at - before[0]) if before is not None else None


def peaks(samples: Sequence[Sample], started_s: float, ended_s: float) -> MemoryPeaks:
    """The sampled maxima between two moments of the run's clock; torch's own figures are not seen from here."""
    inside = [sample for sample in samples if started_s <= sample.t_s <= ended_s]

    def highest(values: Sequence[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    process_mib = highest([sample.gpu_process_mib for sample in inside])
    return MemoryPeaks(
        peak_process_mib=process_mib,
        peak_device_mib=highest([sample.gpu_device_mib for sample in inside]),
        peak_rss_mib=highest([sample.rss_mib for sample in inside]),
        process_source=None if process_mib is None else "nvml",
    )


def achieved_rate_hz(samples: Sequence[Sample], started_s: float, ended_s: float) -> float | None:
    """Samples a second between two moments, None below two samples."""
    inside = [sample.t_s for sample in samples if started_s <= sample.t_s <= ended_s]
    if len(inside) < 2 or inside[-1] <= inside[0]:
        return None
    return (len(inside) - 1) / (inside[-1] - inside[0])


def energy(samples: Sequence[Sample]) -> tuple[float | None, EnergySource | None]:
    """Joules over the samples: the difference of NVML's counter, else the integral of the power."""
    counted = [sample.gpu_energy_j for sample in samples if sample.gpu_energy_j is not None]
    if len(counted) >= 2:
        return counted[-1] - counted[0], "nvml_counter"
    joules = integral([sample.t_s for sample in samples], [sample.gpu_power_w for sample in samples])
    return joules, None if joules is None else "power_integral"
