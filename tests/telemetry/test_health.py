"""Health: a hot run replayed, and what holds of any series of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wan22core.errors import DeviceError
from wan22core.records import Alert, AlertLevel, RepeatKind, Sample, Stage, StageRecord, StageStatus
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.replay import ReplayClock, ReplayProbe
from wan22core.telemetry.sampler import Sampler
from wan22core.telemetry.system import SystemReading
from wan22core.telemetry.thresholds import WATCHES, ActionKind, Line, Quantity, Watch
from wan22core.telemetry.trace import Trace, read_trace

TRACES = Path(__file__).parents[1] / "traces"
HOT = TRACES / "synthetic_hot_rtx-4080_2026-11-24.jsonl"
H100 = TRACES / "h100-80gb-hbm3_580.159.04_2026-11-23_2s-720p-stock-6-steps.jsonl"
BY_QUANTITY = {watch.quantity: watch for watch in WATCHES}
WARNING, CRITICAL = AlertLevel.WARNING, AlertLevel.CRITICAL
Done = list[tuple[float, ActionKind]]


def monitor(on_cpu: bool = False, vram_total_mib: float | None = 100.0) -> HealthMonitor:
    """Of a card of 100 MiB, so that MiB are per cent."""
    return HealthMonitor(vram_total_mib=vram_total_mib, on_cpu=on_cpu)


def replay(trace: Trace) -> tuple[HealthMonitor, list[tuple[float, ActionKind, str]]]:
    """A monitor fed by the real sampler's own loop, and the actions that it asked for."""
    clock = ReplayClock(trace)
    probe = ReplayProbe(trace, clock)
    health = HealthMonitor(vram_total_mib=trace.header.vram_total_mib, on_cpu=False)
    actions: list[tuple[float, ActionKind, str]] = []

    def hear(sample: Sample) -> None:
        actions.extend((action.t_s, action.kind, action.because) for action in health.observe(sample))

    sampler = Sampler(interval_s=1.0, origin_s=0.0, gpu=probe, process=probe.process, clock=clock, on_sample=hear)
    sampler.watch(1)
    sampler._run()
    sampler.stop()
    assert sampler.samples == list(trace.samples)
    return health, actions


def margins(health: HealthMonitor, values: Sequence[float | None], start_s: float = 0.0) -> Done:
    """One margin a second; the actions that they brought."""
    samples = (Sample(t_s=start_s + number, gpu_temperature_margin_c=value) for number, value in enumerate(values))
    return [(action.t_s, action.kind) for sample in samples for action in health.observe(sample)]


def test_a_hot_run_warns_worsens_stops_and_resolves() -> None:
    """The trace's margins: 3 at 46 s, 0 from 55 with one second of 1 at 60, -2 from 72, above 4 from 117 but for a gap
    at 120; its memory: 85.5 % at 40 s, 90.4 % at 50, in the band at 60, empty at 104; throttled from 70 until 110."""
    health, actions = replay(read_trace(HOT))
    assert actions == [
        (50.0, ActionKind.ADVISE_NEXT_PLACEMENT, "vram is 90.44 %, at or above 90 %."),
        (74.0, ActionKind.STOP_AT_STAGE_END, "gpu_temperature_margin is -2 C, at or below -2 C for 2 s."),
        (102.0, ActionKind.STOP_WORKER, "gpu_temperature_margin is -3 C, at or below -2 C for 30 s."),
    ]
    assert health.alerts == [
        Alert(
            quantity="vram",
            level=WARNING,
            threshold=85,
            worst=100 * 14810 / 16376,
            unit="%",
            opened_s=40.0,
            resolved_s=114.0,
            action="advised the next placement, which keeps less on the GPU",
        ),
        Alert(
            quantity="gpu_temperature_margin",
            level=CRITICAL,
            threshold=0,
            worst=-4,
            unit="C",
            opened_s=46.0,
            resolved_s=129.0,
            action="asked to stop the worker at once",
        ),
        Alert(
            quantity="gpu_thermal_throttling",
            level=CRITICAL,
            threshold=1,
            worst=1,
            unit="",
            opened_s=70.0,
            resolved_s=120.0,
        ),
    ]


def test_the_alert_turns_critical_ten_seconds_of_data_after_the_margin_is_gone() -> None:
    """The same trace cut short: a warning until 66 s, because the second around the margin of 1 does not count."""
    trace = read_trace(HOT)
    levels = []
    for end in (66, 67):
        health, _ = replay(Trace(header=trace.header, samples=trace.samples[: end + 1]))
        levels += [alert.level for alert in health.alerts if alert.quantity == "gpu_temperature_margin"]
    assert levels == [WARNING, CRITICAL]


def test_the_recorded_run_of_an_h100_raises_no_alert() -> None:
    """It was a healthy one; its trace has no margin, so that the temperature itself was watched."""
    health, actions = replay(read_trace(H100))
    assert (health.alerts, actions) == ([], [])
    assert set(health.unwatched) == {"gpu_temperature_margin", "allocator_retries", "cpu", "ram", "disk"}


def test_what_a_monitor_breaks_with_ends_the_sampling_with_it() -> None:
    """As a probe's failure does: nothing goes on unwatched in silence."""

    def broken(sample: Sample) -> None:
        raise ZeroDivisionError("in the monitor")

    sampler = Sampler(interval_s=1.0, origin_s=0.0, on_sample=broken)
    sampler.sample_now()
    with pytest.raises(DeviceError, match="ZeroDivisionError: in the monitor"):
        sampler.stop()


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [(0x0, False), (0x1 | 0x4, False), (0x8, False), (0x80, False), (0x20, True), (0x40, True), (0x4 | 0x20, True)],
)
def test_throttling_is_of_heat_alone(reasons: int, throttled: bool) -> None:
    """A power cap, an idle card and the power brake are no matter of temperature."""
    health = monitor()
    health.observe(Sample(t_s=0.0, gpu_throttle_reasons=reasons))
    assert [alert.level for alert in health.alerts] == [CRITICAL] * throttled


def test_without_a_margin_the_temperature_is_watched() -> None:
    """80 C warns; 85 C for ten seconds stops the run at the stage's end, for forty the worker."""
    health = monitor()
    hot = [health.observe(Sample(t_s=float(t), gpu_temperature_c=80.0 + min(t, 5))) for t in range(60)]
    assert [(action.t_s, action.kind) for actions in hot for action in actions] == [
        (15.0, ActionKind.STOP_AT_STAGE_END),
        (45.0, ActionKind.STOP_WORKER),
    ]
    assert [(alert.quantity, alert.opened_s, alert.worst) for alert in health.alerts] == [("gpu_temperature", 0.0, 85)]


def test_with_a_margin_the_temperature_alone_says_nothing() -> None:
    """An H100 may work at 82 C; a margin that is missing for once does not bring the other limit back."""
    health = monitor()
    health.observe(Sample(t_s=0.0, gpu_temperature_c=82.0, gpu_temperature_margin_c=5.0))
    health.observe(Sample(t_s=1.0, gpu_temperature_c=89.0))
    assert health.alerts == []
    assert health.unwatched[Quantity.GPU_TEMPERATURE] == "NVML's margin is watched in its place"


def test_a_margin_around_the_stopping_line_stops_the_worker_after_thirty_seconds_at_it() -> None:
    """A sensor that flickers between -2 and -1 neither hides the heat nor is counted as if it were always at -2."""
    done = margins(monitor(), [-2, -2, -1] * 40)
    assert done == [(4.0, ActionKind.STOP_AT_STAGE_END), (88.0, ActionKind.STOP_WORKER)]


def test_one_reading_at_the_stopping_line_stops_nothing() -> None:
    """The next one is 8 C away: that was no temperature."""
    assert margins(monitor(), [6, -2, 6, 6]) == []


def test_after_an_alert_resolved_the_next_one_opens_and_acts_again() -> None:
    """VRAM at 91 %, eleven seconds at 50 %, and again: two alerts, and the advice in each."""
    health = monitor()
    percents = [91.0, *[50.0] * 11, 91.0]
    samples = (Sample(t_s=float(number), gpu_device_mib=percent) for number, percent in enumerate(percents))
    advised = [action.t_s for sample in samples for action in health.observe(sample)]
    assert advised == [0.0, 12.0]
    assert [(alert.opened_s, alert.resolved_s) for alert in health.alerts] == [(0.0, 11.0), (12.0, None)]


def test_allocator_retries_are_pressure_until_a_stage_has_none() -> None:
    """They come with the stage's end; a stage that does not say leaves the alert as it is."""
    health = monitor()

    def end(ended_s: float | None, retries: int | None) -> list[ActionKind]:
        stage = StageRecord(
            stage=Stage.DECODE,
            kind=RepeatKind.MEASURED,
            repeat=0,
            status=StageStatus.OK,
            ended_s=ended_s,
            allocator_retries=retries,
        )
        return [action.kind for action in health.stage_ended(stage)]

    done = [end(1.0, 0), end(None, 4), end(2.0, 3), end(3.0, 5), end(4.0, None)]
    assert done == [[], [], [ActionKind.ADVISE_NEXT_PLACEMENT], [], []]
    assert [(alert.opened_s, alert.worst, alert.resolved_s) for alert in health.alerts] == [(2.0, 5, None)]
    assert end(5.0, 0) == []
    assert [alert.resolved_s for alert in health.alerts] == [5.0]


def test_full_processors_are_an_alert_after_half_a_minute_and_only_beside_a_gpu() -> None:
    """In a run on the CPU they are what it is for. Samples between two readings of the machine change nothing."""
    on_gpu, on_cpu = monitor(), monitor(on_cpu=True)
    for tenth in range(400):
        system = SystemReading(cpu_percent=97.0) if tenth % 10 == 0 else None
        for health in (on_gpu, on_cpu):
            health.observe(Sample(t_s=tenth / 10), system)
    assert [(alert.quantity, alert.level, alert.opened_s) for alert in on_gpu.alerts] == [("cpu", CRITICAL, 30.0)]
    assert on_cpu.alerts == []
    assert on_cpu.unwatched[Quantity.CPU].startswith("the model runs on the processors")


def test_memory_and_disk_have_their_own_lines() -> None:
    health = monitor()
    health.observe(Sample(t_s=0.0), SystemReading(ram_percent=84.9, disk_percent=89.9))
    assert health.alerts == []
    health.observe(Sample(t_s=1.0), SystemReading(ram_percent=95.0, disk_percent=90.0))
    assert [(alert.quantity, alert.level) for alert in health.alerts] == [("ram", CRITICAL), ("disk", WARNING)]


def test_without_the_cards_size_there_is_no_share_of_it() -> None:
    """And it is said that nothing was watched."""
    health = monitor(vram_total_mib=None)
    health.observe(Sample(t_s=0.0, gpu_device_mib=16000.0))
    assert health.alerts == []
    assert health.unwatched[Quantity.VRAM] == "no value came"


def test_lines_that_do_not_worsen_are_refused() -> None:
    with pytest.raises(ValidationError, match="mildest first"):
        Watch(
            quantity=Quantity.RAM,
            unit="%",
            lines=(Line(at=95, level=CRITICAL), Line(at=85, level=WARNING)),
            band=1,
            calm_s=1,
        )


@given(st.lists(st.floats(83, 85, exclude_min=True, exclude_max=True), max_size=60))
def test_within_the_band_nothing_opens_and_nothing_resolves(percents: list[float]) -> None:
    """However a value moves between 83 and 85 %: no alert out of calm, and the one that is open stays the only one."""
    calm, alarmed = monitor(), monitor()
    alarmed.observe(Sample(t_s=0.0, gpu_device_mib=86.0))
    for number, percent in enumerate(percents):
        calm.observe(Sample(t_s=1.0 + number, gpu_device_mib=percent))
        alarmed.observe(Sample(t_s=1.0 + number, gpu_device_mib=percent))
    assert calm.alerts == []
    assert [alert.resolved_s for alert in alarmed.alerts] == [None]


MISSING = st.sampled_from([None, math.nan])
SERIES = st.lists(st.tuples(st.floats(0, 30), st.one_of(MISSING, st.integers(-8, 12).map(float))), max_size=80)


def fed(series: list[tuple[float, float | None]]) -> tuple[HealthMonitor, Done, dict[float, list[float | None]]]:
    """A monitor after margins at growing distances, its actions, and the values by their time."""
    health, t_s = monitor(), 0.0
    done: Done = []
    seen: dict[float, list[float | None]] = {}
    for distance_s, value in series:
        t_s += distance_s
        seen.setdefault(t_s, []).append(value)
        done += margins(health, [value], t_s)
    return health, done, seen


@given(SERIES)
def test_opening_and_resolving_alternate_whatever_comes(series: list[tuple[float, float | None]]) -> None:
    """One alert at a time, opened at its line and resolved behind its band; each action once in it."""
    health, done, seen = fed(series)
    alerts = health.alerts
    for before, after in pairwise(alerts):
        assert before.resolved_s is not None
        assert before.opened_s <= before.resolved_s <= after.opened_s
    for alert in alerts:
        assert any(value is not None and value <= 3 for value in seen[alert.opened_s])
        assert alert.threshold in {WARNING: (3,), CRITICAL: (0, -2)}[alert.level]
        assert alert.worst <= alert.threshold
        end_s = math.inf if alert.resolved_s is None else alert.resolved_s
        if alert.resolved_s is not None:
            assert any(value is not None and value >= 5 for value in seen[alert.resolved_s])
        kinds = [kind for t_s, kind in done if alert.opened_s <= t_s < end_s]
        assert len(kinds) == len(set(kinds))
        assert (ActionKind.STOP_WORKER in kinds) <= (ActionKind.STOP_AT_STAGE_END in kinds)


@given(SERIES, st.lists(st.tuples(st.floats(0, 1000), MISSING), min_size=1, max_size=20))
def test_nothing_is_concluded_from_nothing(
    series: list[tuple[float, float | None]], gap: list[tuple[float, float | None]]
) -> None:
    """A gap of any length after any series opens no alert, resolves none and asks for nothing."""
    health, done, _ = fed(series)
    longer, done_longer, _ = fed(series + gap)
    assert (longer.alerts, done_longer) == (health.alerts, done)
