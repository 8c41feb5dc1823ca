"""Traces in both forms, and their replay through the real sampler."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wan22core.errors import UserInputError
from wan22core.records import Sample, Telemetry
from wan22core.telemetry.replay import ReplayClock, ReplayProbe
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, peaks
from wan22core.telemetry.trace import Trace, TraceHeader, TraceWriter, read_trace

H100 = Path(__file__).parents[1] / "traces" / "h100-80gb-hbm3_580.159.04_2026-11-23_2s-720p-stock-6-steps.jsonl"
HEADER = TraceHeader(how="made by hand", recorded_at=datetime(2026, 11, 24, tzinfo=UTC), gpu="none", driver=None)
RAW_HEADER = H100.read_text(encoding="utf-8").partition("\n")[0]
RAW_SAMPLE = H100.read_text(encoding="utf-8").splitlines()[1]


def replay(trace: Trace) -> tuple[list[Sample], Telemetry]:
    """The samples and the telemetry of the real sampler's own loop."""
    clock = ReplayClock(trace)
    probe = ReplayProbe(trace, clock)
    sampler = Sampler(interval_s=0.1, origin_s=0.0, gpu=probe, process=probe.process, clock=clock)
    sampler.watch(1)
    sampler._run()
    return sampler.samples, sampler.telemetry()


def record(path: Path, samples: tuple[Sample, ...]) -> None:
    writer = TraceWriter(path, HEADER)
    for sample in samples:
        writer.append(sample)
    writer.close()


def test_the_recorded_run_replays_with_the_files_own_figures() -> None:
    """402 samples in 40.1002 s of an H100: peak, rate and energy as computed from the file's bytes and milliwatts."""
    trace = read_trace(H100)
    samples, telemetry = replay(trace)
    assert samples == list(trace.samples)
    assert (telemetry.samples, telemetry.missed) == (402, 0)
    assert telemetry.achieved_rate_hz == 401 / 40.1002
    assert telemetry.energy_source == "power_integral"
    assert telemetry.energy_j == pytest.approx(10266.941067949996, rel=1e-12)  # watts are rounded one by one
    highest = peaks(samples, 0.0, 41.0)
    assert highest.peak_device_mib == 55734.8125
    assert (highest.peak_process_mib, highest.process_source, highest.peak_rss_mib) == (None, None, None)
    assert peaks(samples, 10.0, 20.0).peak_device_mib == 24234.8125
    assert achieved_rate_hz(samples, 10.0, 20.0) == pytest.approx(10.0, rel=1e-12)
    assert telemetry.reasons["gpu_process_mib"] == "the trace does not hold it"


def test_the_header_of_the_raw_recorder_is_read_in_wan22s_units() -> None:
    assert read_trace(H100).header == TraceHeader(
        how="python3 gen.py --tag stock2 --steps 6",
        recorded_at=None,
        gpu="NVIDIA H100 80GB HBM3",
        driver="580.159.04",
        interval_s=0.1,
        vram_total_mib=81559.0,
        power_limit_w=700.0,
    )


def test_wan22s_own_form_keeps_every_field_and_replays(tmp_path: Path) -> None:
    """What is written is read back equal, and replayed with process memory, resident memory and the energy counter."""
    samples = (
        Sample(t_s=0.0, rss_mib=100.5, gpu_process_mib=2048.0, gpu_device_mib=2560.0, gpu_energy_j=10.0),
        Sample(t_s=0.1, rss_mib=103.5, gpu_process_mib=4096.0, gpu_power_w=88.5, gpu_energy_j=19.0),
        Sample(t_s=0.45, gpu_energy_j=20.5, gpu_throttle_reasons=4),
    )
    path = tmp_path / "t.jsonl"
    record(path, samples[:2])
    path.write_bytes(path.read_bytes() + b'{"t_s": 0.3')  # a kill cut it off
    assert read_trace(path).samples == samples[:2]
    record(path, samples[2:])
    trace = read_trace(path)
    assert trace == Trace(header=HEADER, samples=samples)
    replayed, telemetry = replay(trace)
    assert replayed == list(samples)
    assert (telemetry.energy_j, telemetry.energy_source) == (10.5, "nvml_counter")
    assert telemetry.missed == 2  # 0.2 s was waited for and 0.45 s came: 0.3 and 0.4 s are gone
    highest = peaks(replayed, 0.0, 1.0)
    assert (highest.peak_process_mib, highest.process_source) == (4096.0, "nvml")
    assert (highest.peak_device_mib, highest.peak_rss_mib) == (2560.0, 103.5)


def test_before_its_first_sample_a_trace_says_nothing() -> None:
    """A probe that is asked earlier gives no reading instead of the first sample's."""

    class Early(ReplayClock):
        def monotonic(self) -> float:
            return 0.5

    trace = Trace(header=HEADER, samples=(Sample(t_s=1.0, rss_mib=1.0, gpu_device_mib=2.0),))
    probe = ReplayProbe(trace, Early(trace))
    assert probe.read(1).gpu_device_mib is None
    assert probe.process(1) is None


OWN = '{"header": {"how": "x", "recorded_at": null, "gpu": null, "driver": null}}'


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([], "holds no sample"),
        ([OWN], "holds no sample"),
        (["{}", "{}"], "Line 1 .* no header"),
        (['{"header": {"how": "x"}}', '{"t_s": 0}'], "Line 1 .* recorded_at: Field required"),
        ([OWN, '{"t_s": 0}', '{"t_s": 1'], "Line 3 .* no JSON"),
        ([OWN, "[]"], "Line 2 .* no JSON object"),
        ([OWN, '{"t_s": 0, "watts": 5}'], "Line 2 .* watts: Extra inputs"),
        ([OWN, '{"t_s": 0, "rss_mib": NaN}'], "Line 2 .* NaN is no number"),
        ([OWN, '{"t_s": 1}', '{"t_s": 0}'], "Line 3 .* before that of the line above"),
        ([RAW_HEADER, RAW_SAMPLE, RAW_SAMPLE.replace('"temp_c"', '"temp_f"')], "Line 3 .* temp_c: Field required"),
        ([RAW_HEADER.replace('"mem": "bytes"', '"mem": "kB"'), RAW_SAMPLE], "Line 1 .* unit.mem"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, lines: list[str], named: str) -> None:
    """The message says which line is wrong, and what about it."""
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UserInputError, match=named):
        read_trace(path)


def test_a_trace_that_is_not_there_is_the_users_input(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="can't be read"):
        read_trace(tmp_path / "none.jsonl")
