"""Samples the worker and its GPU from the parent at fixed deadlines, and says how well that went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Literal, Protocol, Self

from wan22core.errors import DeviceError, Wan22Error
from wan22core.hardware.nvml import GpuProbe, GpuReading
from wan22core.records import MemoryPeaks, Sample, Telemetry
from wan22core.statistics import integral
from wan22core.telemetry.process import PsutilReader, ReadProcess

EnergySource = Literal["nvml_counter", "power_integral"]
_SAMPLED = tuple(name for name in Sample.model_fields if name != "t_s")


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
    """One thread in the parent. A deadline that is missed is counted and skipped: no burst, no spinning.

    ``interval_s`` is the distance of two deadlines, ``origin_s`` the monotonic time that each ``t_s`` counts from.
    The GPU's probe is closed by whoever opened it. ``on_sample`` hears of each sample as it comes, in the thread that
    took it; what it raises ends the sampling as a probe that breaks does. ``before`` are samples of an earlier process
    of the same run.
    """

    def __init__(
        self,
        *,
        interval_s: float,
        origin_s: float,
        gpu: GpuProbe | None = None,
        process: ReadProcess | None = None,
        clock: Clock | None = None,
        on_sample: Callable[[Sample], None] | None = None,
        before: Sequence[Sample] = (),
    ) -> None:
        self.interval_s = interval_s
        self.gpu = gpu
        """The GPU to read; may be set before ``start``."""
        self._origin_s = origin_s
        self._process = process or PsutilReader()
        self._clock = clock or RealClock()
        self._on_sample = on_sample
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._samples: list[Sample] = list(before)
        self._count_before = len(before)
        self._pid: int | None = None
        self._cpu: tuple[float, float] | None = None
        self._watched: set[int] = set()
        self._on_gpu: set[int] = set()
        self._missed = 0
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.stop()

    def watch(self, pid: int | None) -> None:
        """The worker to look at from now on; None for none. May be called from any thread."""
        with self._lock:
            self._pid, self._cpu = pid, None
            if pid is not None:
                self._watched.add(pid)

    def start(self) -> None:
        """Starts sampling; once in a sampler's life."""
        assert self._thread is None and not self._stop.is_set(), "a sampler is started once"
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends sampling. Harmless when it was not started or has ended.

        Raises ``DeviceError`` when a probe broke, and the ``Wan22Error`` that ``on_sample`` raised.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, cause = self.failure, self._failure
        self._failure = None
        if failure is not None:
            raise failure from cause if cause is not failure else None

    @property
    def failure(self) -> Wan22Error | None:
        """What ended the sampling, if anything did."""
        failure = self._failure
        if failure is None or isinstance(failure, Wan22Error):
            return failure
        return DeviceError(
            f"Sampling broke off: {type(failure).__name__}: {failure}.",
            next_action="The samples up to then are kept; check the driver, then run again.",
        )

    def sample_now(self) -> None:
        """One synchronous sample beside the paced ones, kept with them. May be called from any thread.

        A probe that breaks here breaks no stage: ``stop`` tells of it.
        """
        try:
            self._take()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; stop() raises it again
            self._failure = self._failure or error

    @property
    def samples(self) -> list[Sample]:
        """All samples so far, in order of time."""
        with self._lock:
            return list(self._samples)

    @property
    def foreign_process(self) -> bool | None:
        """Whether a process that was never watched held a compute context on the GPU.

        None where that can't be seen: without a GPU, or when the driver never listed a watched process, because then
        it counts processes in another way (a container) and a number in its list may well be the worker's own.
        """
        with self._lock:
            return bool(self._on_gpu - self._watched) if self._on_gpu & self._watched else None

    def telemetry(self) -> Telemetry:
        """What was sampled, how regularly, and the energy by the counter or else by the power."""
        samples = self.samples
        energy_j, source = self._energy(samples)
        rate_hz = achieved_rate_hz(samples, float("-inf"), float("inf"))
        return Telemetry(
            requested_interval_s=self.interval_s,
            achieved_rate_hz=rate_hz,
            samples=len(samples),
            missed=self._missed,
            energy_j=energy_j,
            energy_source=source,
            reasons=self._reasons(samples, has_energy=energy_j is not None, has_rate=rate_hz is not None),
        )

    def _energy(self, samples: Sequence[Sample]) -> tuple[float | None, EnergySource | None]:
        """Of each process of the run by itself: what the card used between two of them is not the run's."""
        parts = [energy(part) for part in (samples[: self._count_before], samples[self._count_before :]) if part]
        joules = [part for part, _ in parts]
        if not parts or any(part is None for part in joules):
            return None, None
        sources = {source for _, source in parts}
        total_j = sum(part for part in joules if part is not None)
        return total_j, sources.pop() if len(sources) == 1 else "power_integral"

    def _reasons(self, samples: Sequence[Sample], *, has_energy: bool, has_rate: bool) -> dict[str, str]:
        """Of what no sample has; a probe's reason for a single gap in a quantity that was read is left out."""
        missing = [name for name in _SAMPLED if all(getattr(sample, name) is None for sample in samples)]
        reasons = {name: self._reason(name) if samples else "no sample was taken" for name in missing}
        if not has_energy:
            reasons["energy_j"] = reasons.get("gpu_power_w", "neither the counter nor the power was read twice")
        if not has_rate:
            reasons["achieved_rate_hz"] = "fewer than two samples were taken"
        return reasons

    def _reason(self, name: str) -> str:
        if not name.startswith("gpu_"):
            return "no live process was watched" if name == "rss_mib" else "no process was watched for two samples"
        return "the run uses no GPU" if self.gpu is None else self.gpu.reasons.get(name, "the probe gave no value")

    def _run(self) -> None:
        deadline = self._clock.monotonic()
        try:
            while not self._stop.is_set():
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

    def _take(self) -> None:
        with self._taking:  # two threads take samples: they are told of in the order of their times
            with self._lock:
                sample = self._read()
                self._samples.append(sample)
            if self._on_sample is not None:
                self._on_sample(sample)

    def _read(self) -> Sample:
        at = self._clock.monotonic()
        process = self._process(self._pid) if self._pid is not None else None
        gpu = self.gpu.read(self._pid) if self.gpu is not None else GpuReading()
        self._on_gpu.update(gpu.processes or ())
        return Sample(
            t_s=at - self._origin_s,
            rss_mib=process.rss_mib if process is not None else None,
            cpu_percent=self._cpu_percent(at, process.cpu_s if process is not None else None),
            **gpu.model_dump(exclude={"processes"}),
        )

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
    """Joules over the samples: the difference of NVML's counter, else the integral of the power.

    A counter that ran backwards was reset by a reload of the driver and says nothing about the run.
    """
    counted = [sample.gpu_energy_j for sample in samples if sample.gpu_energy_j is not None]
    if len(counted) >= 2 and all(before <= after for before, after in pairwise(counted)):
        return counted[-1] - counted[0], "nvml_counter"
    joules = integral([sample.t_s for sample in samples], [sample.gpu_power_w for sample in samples])
    return joules, None if joules is None else "power_integral"
