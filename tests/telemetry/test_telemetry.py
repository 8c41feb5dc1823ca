"""Sampling at deadlines, what samples say, and traces replayed through the real sampler."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wan22core.errors import UserInputError
from wan22core.records import Sample
from wan22core.statistics import integral
from wan22core.telemetry.process import ProcessReading, PsutilProbe
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, energy, peaks
from wan22core.telemetry.trace import ReplayProbe, Trace, read_trace, write_trace

TRACES = Path(__file__).parents[1] / "traces"
H100 = next(TRACES.glob("h100-*.jsonl"))


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

    class Busy:
        used = -0.5

        def read(self, pid: int | None) -> ProcessReading:
            self.used += 0.5
            return ProcessReading(rss_mib=10.0, cpu_s=self.used)

    samples = run(Sampler(interval_s=1.0, origin_s=0.0, process=Busy(), clock=ScriptedClock([0.0, 0.0])))
    assert [sample.cpu_percent for sample in samples] == [None, 50.0, 50.0]


def test_a_probe_that_breaks_is_raised_at_the_stop() -> None:
    """Sampling never ends in silence."""

    class Broken:
        def read(self, pid: int | None) -> ProcessReading:
            raise RuntimeError("the probe broke")

    sampler = Sampler(interval_s=0.01, origin_s=0.0, process=Broken())
    sampler.start()
    with pytest.raises(RuntimeError, match="the probe broke"):
        sampler.stop()


def test_a_live_process_has_memory_and_a_dead_one_has_nothing() -> None:
    """A worker that is gone gives None, neither zero nor an exception."""
    probe = PsutilProbe()
    alive = probe.read(os.getpid())
    assert alive.rss_mib is not None
    assert alive.rss_mib > 1
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert probe.read(child.pid) == ProcessReading()
    assert probe.read(None) == ProcessReading()


def test_the_raw_trace_replays_through_the_real_sampler() -> None:
    """Peaks, rate and energy of the replay are those of the file."""
    trace = read_trace(H100)
    replay = ReplayProbe(trace)
    sampler = Sampler(interval_s=0.1, origin_s=0.0, gpu=replay.gpu, process=replay.process, clock=replay)
    samples = run(sampler)
    assert len(samples) == len(trace.samples) == 402
    assert samples == list(trace.samples)
    highest = peaks(samples, 0.0, 100.0)
    assert highest.peak_device_mib == max(sample.gpu_device_mib or 0 for sample in trace.samples)
    assert round((highest.peak_device_mib or 0) / 1024) == 54
    assert highest.peak_process_mib is None
    assert energy(samples) == (
        integral([s.t_s for s in trace.samples], [s.gpu_power_w for s in trace.samples]),
        "power_integral",
    )
    assert sampler.telemetry().achieved_rate_hz == 401 / (trace.samples[-1].t_s - trace.samples[0].t_s)


def test_wan22s_own_form_keeps_every_field(tmp_path: Path) -> None:
    """What is written is read back equal, process memory and resident memory included."""
    samples = (
        Sample(t_s=0.0, rss_mib=100.5, gpu_process_mib=2048.0, gpu_device_mib=2560.0, gpu_energy_j=10.0),
        Sample(t_s=0.1, rss_mib=101.5, cpu_percent=150.0, gpu_power_w=88.5, gpu_energy_j=19.0),
    )
    write_trace(tmp_path / "t.jsonl", {"gpu": "none"}, samples)
    trace = read_trace(tmp_path / "t.jsonl")
    assert trace == Trace(header={"gpu": "none", "form": "wan22-trace-1"}, samples=samples)
    replay = ReplayProbe(trace)
    replayed = run(Sampler(interval_s=0.1, origin_s=0.0, gpu=replay.gpu, process=replay.process, clock=replay))
    assert [sample.gpu_process_mib for sample in replayed] == [2048.0, None]
    assert [sample.rss_mib for sample in replayed] == [100.5, 101.5]
    assert energy(replayed) == (9.0, "nvml_counter")


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "empty"), ("{}\n", "no header"), ('{"header": {}}\n{"t": 0}\n', "Line 2"), ('{"header": {}}\nx\n', "Line 2")],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, named: str) -> None:
    """The message says which line is wrong."""
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(UserInputError, match=named):
        read_trace(path)


def test_rate_and_peaks_are_of_the_stage_alone() -> None:
    """Samples outside the stage count neither for its rate nor for its peak."""
    samples = [Sample(t_s=t / 10, rss_mib=float(t)) for t in range(11)]
    assert achieved_rate_hz(samples, 0.2, 0.6) == pytest.approx(10.0)
    assert peaks(samples, 0.2, 0.6).peak_rss_mib == 6.0
    assert achieved_rate_hz(samples[:1], 0.0, 1.0) is None
