"""Sampling at deadlines, and what samples say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from wan22core.errors import DeviceError
from wan22core.hardware.nvml import GpuReading
from wan22core.records import Sample
from wan22core.telemetry.process import ProcessReading, PsutilReader
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, energy, peaks


class ScriptedClock:
    """A clock whose waits take exactly as long as asked, plus the delays of a script."""

    def __init__(self, delays: list[float]) -> None:
        self.now = 0.0
        self.delays = delays

    def monotonic(self) -> float:
        return self.now

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        if not self.delays:
            stop.set()
            return True
        self.now += seconds + self.delays.pop(0)
        return stop.is_set()


def run(sampler: Sampler) -> list[Sample]:
    sampler._run()
    return sampler.samples


def test_samples_are_paced_by_deadlines_so_lateness_does_not_add_up() -> None:
    """A sample that comes 20 ms late does not move those after it."""
    sampler = Sampler(interval_s=0.125, origin_s=0.0, clock=ScriptedClock([0.02, 0.0, 0.0]))
    assert [round(sample.t_s, 6) for sample in run(sampler)] == [0.0, 0.145, 0.25, 0.375]
    assert sampler.telemetry().missed == 0


def test_missed_deadlines_are_counted_and_skipped() -> None:
    """A stall of 2.5 intervals costs the deadlines inside it, and no burst follows."""
    sampler = Sampler(interval_s=0.125, origin_s=0.0, clock=ScriptedClock([0.3125, 0.0]))
    assert [sample.t_s for sample in run(sampler)] == [0.0, 0.4375, 0.5]
    assert sampler.telemetry().missed == 2


def test_cpu_percent_is_the_processor_time_between_two_samples() -> None:
    """Half a second of processor time in a second is 50 %; the first sample has no figure."""

    used_s = iter([0.0, 0.5, 1.0])
    sampler = Sampler(
        interval_s=1.0,
        origin_s=0.0,
        process=lambda pid: ProcessReading(rss_mib=10.0, cpu_s=next(used_s)),
        clock=ScriptedClock([0.0, 0.0]),
    )
    sampler.watch(7)
    samples = run(sampler)
    assert [sample.cpu_percent for sample in samples] == [None, 50.0, 50.0]


def test_a_probe_that_breaks_is_raised_at_the_stop() -> None:
    """Sampling never ends in silence; a second stop has nothing more to say."""
    broke = threading.Event()

    def broken(pid: int) -> ProcessReading:
        broke.set()
        raise RuntimeError("the probe broke")

    sampler = Sampler(interval_s=0.01, origin_s=0.0, process=broken)
    sampler.watch(7)
    sampler.start()
    assert broke.wait(10)
    with pytest.raises(DeviceError, match="the probe broke"):
        sampler.stop()
    sampler.stop()


def test_the_context_starts_and_stops_the_thread() -> None:
    """Inside there is a sampler at work, after it there is none."""
    sampled = threading.Event()

    def process(pid: int) -> ProcessReading:
        sampled.set()
        return ProcessReading(rss_mib=1.0)

    sampler = Sampler(interval_s=60.0, origin_s=time.monotonic(), process=process)
    sampler.watch(7)
    with sampler:
        assert sampled.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "sampler"]
    assert [sample.rss_mib for sample in sampler.samples] == [1.0]


def test_synchronous_samples_of_other_threads_keep_the_order_of_time() -> None:
    """Four threads sample at once; nothing is lost, and no sample stands before an earlier one."""
    sampler = Sampler(interval_s=0.001, origin_s=0.0)
    with sampler:
        threads = [threading.Thread(target=lambda: [sampler.sample_now() for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    times_s = [sample.t_s for sample in sampler.samples]
    assert len(times_s) >= 201
    assert times_s == sorted(times_s)


def test_a_live_process_has_memory_and_one_that_is_gone_has_nothing() -> None:
    """A worker that died gives None, waited for or not: neither zero bytes nor an exception."""
    read = PsutilReader()
    ours = read(os.getpid())
    assert ours is not None
    assert ours.rss_mib > 1
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert read(child.pid) is not None
    child.kill()
    if hasattr(os, "waitid"):  # returns when it is dead, and leaves it unwaited
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert read(child.pid) is None
    assert child.communicate() == (None, None)
    assert child.returncode == -signal.SIGKILL
    assert read(child.pid) is None


class Gpu:
    """A card whose list of processes follows a script."""

    def __init__(self, *listed: tuple[int, ...] | None) -> None:
        self.reasons: dict[str, str] = {"gpu_power_w": "NVML: Not Supported", "gpu_process_mib": "not listed"}
        self._listed = iter(listed)

    def read(self, pid: int | None) -> GpuReading:
        return GpuReading(gpu_device_mib=1.0, processes=next(self._listed))

    def close(self) -> None:
        """Nothing to let go."""


@pytest.mark.parametrize(
    ("listed", "foreign"),
    [
        ([(), (7,)], False),
        ([(7,), (7, 9)], True),
        ([(9,), (7,)], True),
        ([(7,), (8, 7)], False),
        ([(9,), (9,)], None),
        ([(), ()], None),
        ([None, None], None),
    ],
    ids=["alone", "beside", "before", "respawned", "other_numbers", "nobody", "no_list"],
)
def test_a_foreign_process_is_one_that_was_never_watched(
    listed: list[tuple[int, ...] | None], foreign: bool | None
) -> None:
    """Nothing is said until the driver lists a watched process: in a container its numbers are other ones."""
    sampler = Sampler(interval_s=1.0, origin_s=0.0, gpu=Gpu(*listed), process=lambda pid: None)
    sampler.watch(8)
    sampler.watch(7)
    for _ in listed:
        sampler.sample_now()
    assert sampler.foreign_process is foreign


def test_a_probe_that_breaks_at_a_stages_edge_breaks_no_stage() -> None:
    """It is told when the sampling ends."""

    def broken(pid: int) -> ProcessReading:
        raise RuntimeError("the probe broke")

    sampler = Sampler(interval_s=1.0, origin_s=0.0, process=broken)
    sampler.watch(7)
    sampler.sample_now()
    with pytest.raises(DeviceError, match="the probe broke"):
        sampler.stop()


def test_reasons_are_given_for_what_no_sample_has() -> None:
    """The probe's reason where it has one; nothing about a quantity that was read."""
    sampler = Sampler(interval_s=1.0, origin_s=0.0, gpu=Gpu(()), process=lambda pid: None)
    sampler.watch(7)
    sampler.sample_now()
    telemetry = sampler.telemetry()
    assert "gpu_device_mib" not in telemetry.reasons
    assert telemetry.reasons["gpu_power_w"] == "NVML: Not Supported"
    assert telemetry.reasons["gpu_process_mib"] == "not listed"
    assert telemetry.reasons["gpu_sm_mhz"] == "the probe gave no value"
    assert telemetry.reasons["energy_j"] == "NVML: Not Supported"
    assert telemetry.reasons["achieved_rate_hz"] == "fewer than two samples were taken"
    assert telemetry.reasons["rss_mib"] == "no live process was watched"
    assert (telemetry.energy_j, telemetry.achieved_rate_hz) == (None, None)


def test_a_run_without_a_gpu_says_so_for_each_of_its_quantities() -> None:
    sampler = Sampler(interval_s=1.0, origin_s=0.0)
    sampler.sample_now()
    assert sampler.telemetry().reasons["gpu_power_w"] == "the run uses no GPU"
    assert sampler.foreign_process is None


def test_energy_is_the_counters_difference_or_else_the_powers_integral() -> None:
    """A counter that was reset in between counts for nothing."""

    def sample(t_s: float, energy_j: float | None, power_w: float | None = 100.0) -> Sample:
        return Sample(t_s=t_s, gpu_energy_j=energy_j, gpu_power_w=power_w)

    assert energy([sample(0, 5.0), sample(1, 95.0), sample(2, 215.0)]) == (210.0, "nvml_counter")
    assert energy([sample(0, 5.0), sample(1, 1.0), sample(2, 300.0)]) == (200.0, "power_integral")
    assert energy([sample(0, None), sample(2, None)]) == (200.0, "power_integral")
    assert energy([sample(0, 5.0, None)]) == (None, None)


def test_rate_and_peaks_are_of_the_stage_alone() -> None:
    """Samples outside the stage count neither for its rate nor for its peak."""
    samples = [Sample(t_s=t / 10, rss_mib=float(t)) for t in range(11)]
    assert achieved_rate_hz(samples, 0.2, 0.6) == pytest.approx(10.0)
    assert peaks(samples, 0.2, 0.6).peak_rss_mib == 6.0
    assert achieved_rate_hz(samples[:1], 0.0, 1.0) is None


def test_energy_between_two_processes_of_a_run_is_not_the_runs() -> None:
    """The counter went on while nothing was measured: each process counts by itself."""
    before = [Sample(t_s=0.0, gpu_energy_j=100.0), Sample(t_s=1.0, gpu_energy_j=150.0)]
    sampler = Sampler(interval_s=1.0, origin_s=0.0, before=before)
    sampler._samples += [Sample(t_s=2.0, gpu_energy_j=9000.0), Sample(t_s=3.0, gpu_energy_j=9070.0)]
    assert (sampler.telemetry().energy_j, sampler.telemetry().energy_source) == (120.0, "nvml_counter")
