"""Carries out what the health of the machine asks for while a run is measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from wan22core.errors import DeviceTooHotError, Wan22Error
from wan22core.records import Alert, Sample, StageRecord
from wan22core.telemetry.health import HealthAction, HealthMonitor
from wan22core.telemetry.system import SystemReader
from wan22core.telemetry.thresholds import ActionKind

_log = logging.getLogger(__name__)


class HealthGuard:
    """Hears of samples in the sampler's thread and of stages in the session's.

    A card that is too hot first keeps the next stage from starting; when that does not help in time (a stage may take
    an hour), ``stop_worker`` ends what runs.
    """

    def __init__(
        self,
        new_monitor: Callable[[], HealthMonitor],
        read_system: SystemReader,
        stop_worker: Callable[[Wan22Error], None],
    ) -> None:
        self.stop: Wan22Error | None = None
        """Why no further stage may start."""
        self._new_monitor = new_monitor
        self._monitor = new_monitor()
        self._before: list[Alert] = []
        self._read_system = read_system
        self._stop_worker = stop_worker

    def remember(self, samples: Sequence[Sample]) -> None:
        """What an earlier process of the run sampled of the GPU: its alerts are kept in the list.

        Nothing of it counts for what is done now: a card that is too hot again stops this process as it stopped that.
        """
        earlier = self._new_monitor()
        for sample in samples:
            earlier.observe(sample)
        self._before = earlier.alerts

    def heard(self, sample: Sample) -> None:
        """Looks at a sample, and at the machine around it once a second."""
        for action in self._monitor.observe(sample, self._read_system(sample.t_s)):
            self._carry_out(action)

    def ended(self, stage: StageRecord) -> None:
        """Looks at what the end of a stage tells of the allocator."""
        for action in self._monitor.stage_ended(stage):
            self._carry_out(action)

    @property
    def alerts(self) -> list[Alert]:
        """What crossed a threshold, in the order in which it did."""
        return [*self._before, *self._monitor.alerts]

    @property
    def unwatched(self) -> dict[str, str]:
        """Why nothing can be said of a quantity: without this, no alert would read as health."""
        said = {name.removesuffix("_percent"): reason for name, reason in self._read_system.reasons.items()}
        return {name: said.get(name, reason) for name, reason in self._monitor.unwatched.items()}

    def _carry_out(self, action: HealthAction) -> None:
        if action.kind is ActionKind.ADVISE_NEXT_PLACEMENT:
            _log.warning("%s A recipe that keeps less on the GPU is advised: wan22 plan lists them.", action.because)
            return
        self.stop = self.stop or DeviceTooHotError(
            f"The run was stopped to let the GPU cool: {action.because}",
            next_action="Look at the fans and the air flow, or lower the power limit (nvidia-smi -pl), then run again.",
        )
        if action.kind is ActionKind.STOP_WORKER:
            self._stop_worker(self.stop)
