"""Health while a run is measured: alerts that open, worsen and resolve, and what to do about them.

Pure: time is the samples' own. A value counts for as long as it is seen. At or beyond a line seconds add up; within
the line's band they stand still, and so they do while the value is missing; back beyond the band they start from zero.
The same holds for coming back. So neither a sensor's flicker nor a gap opens or resolves anything.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from wan22core.records import Alert, AlertLevel, Sample, StageRecord
from wan22core.records.base import Record
from wan22core.telemetry.system import SystemReading
from wan22core.telemetry.thresholds import WATCHES, ActionKind, Line, Quantity, Watch

THERMAL_THROTTLING = 0x20 | 0x40
"""Of NVML's clock event reasons the two that mean heat: SW thermal slowdown and HW thermal slowdown. HW slowdown (0x8)
is set for the power brake as well."""

_WORDS = {
    ActionKind.ADVISE_NEXT_PLACEMENT: "advised the next placement, which keeps less on the GPU",
    ActionKind.STOP_AT_STAGE_END: "asked to stop the run at the end of the stage",
    ActionKind.STOP_WORKER: "asked to stop the worker at once",
}


class HealthAction(Record):
    """One thing to do, once in each alert."""

    kind: ActionKind
    t_s: float
    """On the run's clock."""
    because: str
    """The value and its threshold, in a sentence."""


class HealthMonitor:
    """Watches the samples of one run, in order of time; may be asked and fed from several threads.

    ``vram_total_mib`` is the physical card's memory, None where it is not known or there is no card. ``on_cpu`` says
    that the model runs on the processors.
    """

    def __init__(self, *, vram_total_mib: float | None, on_cpu: bool, watches: Sequence[Watch] = WATCHES) -> None:
        self._vram_total_mib = vram_total_mib
        self._on_cpu = on_cpu
        self._watchers = {watch.quantity: _Watcher(watch) for watch in watches}
        self._has_margin = False
        self._lock = threading.Lock()

    def observe(self, sample: Sample, system: SystemReading | None = None) -> list[HealthAction]:
        """What to do now. ``system`` is None where the machine was not read with this sample: its quantities wait."""
        self._has_margin = self._has_margin or sample.gpu_temperature_margin_c is not None
        values = {
            Quantity.GPU_TEMPERATURE_MARGIN: sample.gpu_temperature_margin_c,
            Quantity.GPU_TEMPERATURE: None if self._has_margin else sample.gpu_temperature_c,
            Quantity.GPU_THERMAL_THROTTLING: _throttling(sample.gpu_throttle_reasons),
            Quantity.VRAM: _percent(sample.gpu_device_mib, self._vram_total_mib),
        }
        if system is not None:
            values[Quantity.CPU] = None if self._on_cpu else system.cpu_percent
            values[Quantity.RAM] = system.ram_percent
            values[Quantity.DISK] = system.disk_percent
        return self._feed(sample.t_s, values)

    def stage_ended(self, stage: StageRecord) -> list[HealthAction]:
        """What a stage's end tells of the allocator; a stage that does not say changes nothing."""
        if stage.ended_s is None:
            return []
        return self._feed(stage.ended_s, {Quantity.ALLOCATOR_RETRIES: stage.allocator_retries})

    @property
    def alerts(self) -> list[Alert]:
        """Open and resolved, in the order in which they opened."""
        with self._lock:
            found = [alert for watcher in self._watchers.values() for alert in watcher.alerts]
        return sorted(found, key=lambda alert: alert.opened_s)

    @property
    def unwatched(self) -> dict[str, str]:
        """Why nothing can be said of a quantity, so that no alert is not taken for health."""
        with self._lock:
            return {name: self._reason(name) for name, watcher in self._watchers.items() if not watcher.has_seen}

    def _feed(self, t_s: float, values: dict[Quantity, float | None]) -> list[HealthAction]:
        with self._lock:
            fed = [watcher.feed(t_s, values[name]) for name, watcher in self._watchers.items() if name in values]
        return [action for actions in fed for action in actions]

    def _reason(self, quantity: Quantity) -> str:
        if quantity is Quantity.CPU and self._on_cpu:
            return "the model runs on the processors, whose work it is to be full"
        if quantity is Quantity.GPU_TEMPERATURE and self._has_margin:
            return "NVML's margin is watched in its place"
        return "no value came"


class _Watcher:
    """Where one quantity stands; nothing but what its values so far make it."""

    def __init__(self, watch: Watch) -> None:
        self.alerts: list[Alert] = []
        self.has_seen = False
        self._watch = watch
        self._beyond = [_Seconds() for _ in watch.lines]
        self._calm = _Seconds()
        self._left = list(range(len(watch.lines)))
        """Numbers of the lines that the open alert has not reached."""

    @property
    def _is_open(self) -> bool:
        return bool(self.alerts) and self.alerts[-1].resolved_s is None

    def feed(self, t_s: float, value: float | None) -> list[HealthAction]:
        if value is None or not math.isfinite(value):
            for seconds in (*self._beyond, self._calm):
                seconds.count(t_s, None)
            return []
        self.has_seen = True
        states = [self._watch.is_beyond(value, line.at) for line in self._watch.lines]
        for seconds, state in zip(self._beyond, states, strict=True):
            seconds.count(t_s, state)
        self._calm.count(t_s, None if states[0] is None else not states[0])
        if self._is_open:
            self._amend(worst=max(value, self.alerts[-1].worst, key=lambda each: self._watch.excess(each, 0)))
        reached = [number for number in self._left if self._beyond[number].lasted(self._watch.lines[number].hold_s)]
        actions = [self._reach(self._watch.lines[number], t_s, value) for number in reached]
        self._left = [number for number in self._left if number not in reached]
        if self._is_open and self._calm.lasted(self._watch.calm_s):
            self._amend(resolved_s=t_s)
            self._left = list(range(len(self._watch.lines)))
        return [action for action in actions if action is not None]

    def _reach(self, line: Line, t_s: float, value: float) -> HealthAction | None:
        if not self._is_open:
            self.alerts.append(
                Alert(
                    quantity=self._watch.quantity.value,
                    level=line.level,
                    threshold=line.at,
                    worst=value,
                    unit=self._watch.unit,
                    opened_s=t_s,
                )
            )
        if line.level is AlertLevel.CRITICAL and self.alerts[-1].level is AlertLevel.WARNING:
            self._amend(level=line.level, threshold=line.at)
        if line.action is None:
            return None
        self._amend(action=_WORDS[line.action])
        return HealthAction(kind=line.action, t_s=t_s, because=self._because(line, value))

    def _because(self, line: Line, value: float) -> str:
        name, unit = self._watch.quantity.value, f" {self._watch.unit}".rstrip()
        side = "at or below" if self._watch.low_is_bad else "at or above"
        held = f" for {line.hold_s:g} s" if line.hold_s else ""
        return f"{name} is {value:.4g}{unit}, {side} {line.at:g}{unit}{held}."

    def _amend(self, **changed: object) -> None:
        self.alerts[-1] = self.alerts[-1].model_copy(update=changed)


class _Seconds:
    """How long something was seen to hold: adds up between samples that say so, stands still where none can tell."""

    def __init__(self) -> None:
        self._total_s = 0.0
        self._since_s: float | None = None

    def count(self, t_s: float, holds: bool | None) -> None:
        if holds is False:
            self._total_s = 0.0
        if holds and self._since_s is not None:
            self._total_s += t_s - self._since_s
        self._since_s = t_s if holds else None

    def lasted(self, seconds: float) -> bool:
        """Holds now, and did for as many seconds of data."""
        return self._since_s is not None and self._total_s >= seconds


def _throttling(reasons: int | None) -> float | None:
    return None if reasons is None else float(bool(reasons & THERMAL_THROTTLING))


def _percent(used: float | None, total: float | None) -> float | None:
    return None if used is None or not total else 100 * used / total
