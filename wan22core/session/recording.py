"""What a run leaves, on disk as it comes: its stages in a journal, its samples in a trace, the first error."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from wan22core.errors import UserInputError, Wan22Error
from wan22core.files import whole_lines
from wan22core.hardware.nvml import GpuProbe
from wan22core.records import (
    Alert,
    GpuProfile,
    RepeatKind,
    RunError,
    Sample,
    Stage,
    StageRecord,
    StageStatus,
    Telemetry,
)
from wan22core.recovery.journal import Journal, JournalHeader, SavedRun
from wan22core.session import assemble
from wan22core.session.folder import RunFolder
from wan22core.session.guard import HealthGuard
from wan22core.specs import BenchmarkSpec
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, peaks
from wan22core.telemetry.thresholds import Quantity
from wan22core.telemetry.trace import TraceHeader, TraceWriter, read_trace
from wan22core.worker.messages import StageResult

_log = logging.getLogger(__name__)


class Recording:
    """The records of one run, maybe begun by an earlier process: its clock goes on where that one ended.

    Every write raises ``InsufficientDiskSpaceError`` or ``StorageError`` where the disk takes nothing.
    """

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        saved: SavedRun,
        before: Sequence[Sample] = (),
        *,
        interval_s: float,
    ) -> None:
        self.folder = folder
        self.header = saved.header
        self.stages = saved.finished()
        self.earlier = saved.stages
        """All that an earlier process recorded, what failed included."""
        self.error: RunError | None = None
        self.resumed = bool(saved.stages)
        """Whether an earlier process measured a part of it."""
        self._journal = journal
        self._trace: TraceWriter | None = None
        self._guard: HealthGuard | None = None
        times_s = [stage.ended_s or 0.0 for stage in saved.stages] + [sample.t_s for sample in before]
        self._origin = time.monotonic() - max(times_s, default=0.0)
        self.sampler = Sampler(interval_s=interval_s, origin_s=self._origin, on_sample=self._heard, before=before)

    @classmethod
    def new(cls, folder: RunFolder, spec: BenchmarkSpec, command: str, *, interval_s: float) -> Self:
        """Of a run that begins now."""
        header = JournalHeader(run_id=folder.run_id, created_at=datetime.now(UTC), command=command, spec=spec)
        return cls(folder, Journal.create(folder.path, header), SavedRun(header=header), interval_s=interval_s)

    @classmethod
    def going_on(cls, folder: RunFolder, *, interval_s: float) -> Self:
        """Of a run that was ended before its reports were written.

        Raises ``DeviceBusyError`` while it still runs, and ``UserInputError`` for a journal that can't be understood.
        """
        journal, saved = Journal.reopen(folder.path)
        return cls(folder, journal, saved, _samples_before(folder.trace), interval_s=interval_s)

    @property
    def now_s(self) -> float:
        """Seconds on the run's clock."""
        return time.monotonic() - self._origin

    @property
    def starts(self) -> int:
        """How often a worker was started in this run, before this process."""
        return sum(stage.stage is Stage.START for stage in self.stages)

    def finished(self, kind: RepeatKind, repeat: int) -> set[Stage]:
        """The stages of a video that ended well."""
        own = [stage for stage in self.stages if (stage.kind, stage.repeat) == (kind, repeat)]
        return {stage.stage for stage in own if stage.status is StageStatus.OK}

    def start_sampling(self, gpu: GpuProfile | None, probe: GpuProbe | None, guard: HealthGuard) -> None:
        """Samples from now on, the GPU through ``probe`` where there is one; ``guard`` hears of each."""
        guard.remember(self.sampler.samples)
        self._guard = guard
        header = TraceHeader(
            how=self.header.command,
            recorded_at=datetime.now(UTC),
            gpu=gpu.name.value if gpu is not None else None,
            driver=gpu.driver.value if gpu is not None else None,
            interval_s=self.sampler.interval_s,
            vram_total_mib=gpu.vram_total_mib.value if gpu is not None else None,
            power_limit_w=gpu.power_limit_w.value if gpu is not None else None,
        )
        self._trace = TraceWriter(self.folder.trace, header)
        self.sampler.gpu = probe
        self.sampler.start()

    def add(self, *stages: StageRecord) -> None:
        """Keeps stages that ended, after the samples that were taken in them."""
        if self._trace is not None:
            self._trace.flush()
        self._journal.append(stages)
        self.stages += stages
        if self._guard is not None:
            for stage in stages:
                self._guard.ended(stage)

    def not_run(self, stage: Stage, kind: RepeatKind, repeat: int) -> None:
        """A stage that was not even tried is no matter for a later process, which will try it."""
        self.stages.append(StageRecord(stage=stage, kind=kind, repeat=repeat, status=StageStatus.NOT_RUN))

    def failed(self, common: dict[str, Any], error: Wan22Error) -> None:
        """A stage that ended in an error."""
        ending: dict[str, Any] = {"ended_s": self.now_s, "error_code": error.code, "error": error.message}
        self.add(StageRecord(**common, **ending, status=StageStatus.FAILED))

    def succeeded(self, common: dict[str, Any], result: StageResult) -> None:
        """A stage with what the worker measured and what was sampled meanwhile."""
        self.sampler.sample_now()
        started_s, ended_s = common["started_s"], self.now_s
        sampled = [sample for sample in self.sampler.samples if started_s <= sample.t_s <= ended_s]
        records = assemble.stage_records(
            {**common, "ended_s": ended_s, "resumed": self.resumed},
            result.model_dump(exclude={"components", "census", "attention_backend", "settings"}),
            result.components,
            peaks(sampled, started_s, ended_s),
            samples=len(sampled),
            rate_hz=achieved_rate_hz(sampled, started_s, ended_s),
        )
        self.add(*records)

    @property
    def stop(self) -> Wan22Error | None:
        """Why no further stage may start: the machine's health forbids it, or nobody would see it."""
        return (self._guard.stop if self._guard is not None else None) or self.sampler.failure

    @property
    def alerts(self) -> list[Alert]:
        """What crossed a threshold of health."""
        return self._guard.alerts if self._guard is not None else []

    @property
    def unwatched(self) -> dict[str, str]:
        """Why nothing can be said of the health of a quantity."""
        return self._guard.unwatched if self._guard is not None else dict.fromkeys(Quantity, "nothing was sampled")

    def telemetry(self) -> Telemetry:
        """What the sampler did; with the reasons of what could not be watched."""
        found = self.sampler.telemetry()
        reasons = {f"health of {name}": reason for name, reason in self.unwatched.items()}
        return found.model_copy(update={"reasons": found.reasons | reasons})

    def keep(self, error: Wan22Error, stage: Stage | None) -> None:
        """The first error is what broke the run."""
        if self.error is None:
            log = str(self.folder.log)
            self.error = RunError(code=error.code, message=error.message, next=error.next_action, stage=stage, log=log)

    def close(self) -> None:
        """Ends the sampling; what was recorded stays for a later process, if there is more than a start.

        Raises what the sampler raises.
        """
        try:
            self.sampler.stop()
        finally:
            if self.sampler.gpu is not None:
                self.sampler.gpu.close()
            if self._trace is not None:
                self._trace.close()
            if all(stage.stage is Stage.START for stage in self.stages):
                self._journal.remove()
            self._journal.close()

    def complete(self) -> None:
        """The run's documents are written: nothing is left to go on with."""
        self._journal.remove()

    def _heard(self, sample: Sample) -> None:
        if self._guard is not None:
            self._guard.heard(sample)
        if self._trace is not None:
            self._trace.append(sample)


def _samples_before(trace: Path) -> tuple[Sample, ...]:
    """What an earlier process sampled; a trace that can't be understood is set aside, and costs no stage."""
    try:
        return read_trace(trace).samples if trace.exists() and len(whole_lines(trace)) > 1 else ()
    except (UserInputError, UnicodeDecodeError) as error:
        aside = trace.with_suffix(".unreadable")
        trace.replace(aside)
        _log.warning("%s It is kept as %s; what was measured counts without its samples.", error, aside)
        return ()
