"""One benchmark run: the stages in their order, each ending in a record, whatever happens to the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from wan22core.errors import (
    SegmentationFaultError,
    StageFailedError,
    StageTimeoutError,
    UnsupportedQuantizationError,
    Wan22Error,
    WorkerError,
)
from wan22core.hardware.detect import detect
from wan22core.hardware.nvml import open_gpu
from wan22core.planning.quantization import QuantizationAttempt, QuantizationPlan, plan_quantization
from wan22core.records import (
    Census,
    HardwareProfile,
    MemoryPeaks,
    Progress,
    RepeatKind,
    RunError,
    Sample,
    Stage,
    StageRecord,
    StageStatus,
    Telemetry,
    WeightsRecord,
)
from wan22core.session import assemble
from wan22core.session.folder import RunFolder
from wan22core.session.locks import DeviceLock
from wan22core.session.order import deadline_s, generation_stages, with_precision
from wan22core.session.weights import prepare_weights
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, peaks
from wan22core.worker.client import ModelWorker
from wan22core.worker.messages import StageResult, StartReport

_FALLS_BACK_ON = (UnsupportedQuantizationError, StageTimeoutError, StageFailedError, SegmentationFaultError)
"""Out of memory is not among them: another precision is not what helps then."""
_MAX_LIVES_LOST = 2  # a worker that dies again and again is a broken run, not bad luck


class BenchmarkSession:
    """The worker, the sampler and the records of one run. Leaving the context ends the worker and frees the device.

    Errors of a stage do not leave the methods below: they end the run's measuring, are kept in ``error``, and the rest
    of the run (judging, history, report) goes on. What is raised is raised before anything was measured.
    """

    def __init__(
        self,
        spec: BenchmarkSpec,
        settings: Settings,
        folder: RunFolder,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.folder = folder
        self.error: RunError | None = None
        self.stages: list[StageRecord] = []
        self.hardware: HardwareProfile | None = None
        self.weights: WeightsRecord | None = None
        self.plan: QuantizationPlan | None = None
        self.census: list[Census] = []
        self.attention_backend: str | None = None
        self.device = spec.device
        self.threads: int | None = None
        """CPU threads, read back from torch in the worker."""
        self._on_progress = on_progress
        self._origin = time.monotonic()
        self._worker = ModelWorker(folder.log, on_progress)
        self._sampler = Sampler(interval_s=settings.sample_interval_s, origin_s=self._origin, gpu=None)
        self._lock = DeviceLock(settings.locks_path)
        self._active = spec
        self._lives_lost = 0
        self.fell_back = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        with ExitStack() as ending:  # the last one named ends first, and each ends whatever the others raise
            ending.callback(self._lock.release)
            if self._sampler.gpu is not None:
                ending.callback(self._sampler.gpu.close)
            ending.callback(self._sampler.stop)
            ending.callback(self._worker.close)

    def spawn_worker(self) -> None:
        """Starts the child; it imports while the caller does something else."""
        self._worker.spawn()

    def detect_hardware(self) -> HardwareProfile:
        """The worker started (a stage of its own), this machine's profile by NVML and torch, the device locked.

        A worker that does not start breaks the run, and the profile is the one without torch. Raises
        ``IncompatibleHardwareError``, ``UserInputError`` and ``DeviceBusyError``; nothing was measured then.
        """
        report = self._start(keeps=WorkerError)
        self.hardware = detect(self.settings.data_dir, report.torch if report is not None else None)
        self.device = report.device if report is not None else self.device
        gpu = self.hardware.gpu_of(self.device)
        uuid = gpu.uuid.value if gpu is not None else None
        if uuid is not None:
            self._lock.acquire(uuid)
            self._sampler.gpu = open_gpu(uuid)
        self._sampler.start()
        return self.hardware

    def prepare_weights(self) -> WeightsRecord | None:
        """A verified checkpoint; None for a user's own functions, which bring their own."""
        if self.spec.opaque is None and self.error is None:
            self.weights = prepare_weights(self.spec.weights, self.settings, self.folder.log, self._on_progress)
        return self.weights

    def set_up_quantization(self) -> QuantizationPlan:
        """Which precisions to try, in which order, under which deadlines."""
        size_gib = self.weights.transformer_bytes / 2**30 if self.weights is not None else 0.0
        self.plan = plan_quantization(self.spec, size_gib)
        return self.plan

    def load_model(self) -> list[StageRecord]:
        """Loads and quantizes under the plan; each fallback from clean weights in a fresh worker."""
        assert self.plan is not None, "set_up_quantization comes first"
        before = len(self.stages)
        if self.error is not None:
            self.stages.append(
                StageRecord(stage=Stage.LOAD, kind=RepeatKind.SETUP, repeat=0, status=StageStatus.NOT_RUN)
            )
            return self.stages[before:]
        for number, attempt in enumerate(self.plan.attempts):
            self._active = with_precision(self.spec, attempt.precision)
            last = number + 1 == len(self.plan.attempts)
            if number and (self.error is not None or not self._restart()):
                break
            if self._load(attempt, attempt_number=number + 1, last=last):
                self.fell_back = number > 0
                break
        return self.stages[before:]

    def generate(self, kind: RepeatKind, repeat: int) -> list[StageRecord]:
        """One video: the generation stages in their order. After a failure the rest is recorded as not run."""
        before = len(self.stages)
        failed = self.error is not None and not self._revive()
        for stage, arguments in generation_stages(self.spec, self.folder, kind):
            if failed:
                self.stages.append(StageRecord(stage=stage, kind=kind, repeat=repeat, status=StageStatus.NOT_RUN))
            else:
                failed = not self._run(stage, kind, repeat, deadline_s(self.spec.deadlines, stage), **arguments)
        return self.stages[before:]

    def finish_measuring(self) -> MemoryPeaks:
        """Ends worker and sampler, and returns the peaks over the whole run."""
        self._worker.close()
        try:
            self._sampler.stop()
        except Wan22Error as error:
            self._keep(error, None)
        return assemble.merge_peaks(self.stages)

    @property
    def samples(self) -> list[Sample]:
        """Telemetry so far, in order."""
        return self._sampler.samples

    def telemetry(self) -> Telemetry:
        """What the sampler did."""
        return self._sampler.telemetry()

    @property
    def attempts(self) -> int:
        """How many workers were started."""
        return self._worker.lives

    @property
    def foreign_process(self) -> bool | None:
        """Whether another process computed on the GPU meanwhile, as far as that can be seen."""
        return self._sampler.foreign_process

    def _start(self, keeps: type[Wan22Error]) -> StartReport | None:
        """What the worker found; None, with the error kept, when it ends in an error of the kind ``keeps``."""
        if self._worker.pid is None:
            self._worker.spawn()
        asked_s, deadline_s = time.monotonic() - self._origin, self.spec.deadlines.start_s
        report: StartReport | None = None
        outcome: float | Wan22Error
        try:
            report, outcome = self._worker.start({"spec": self._active.model_dump(mode="json")}, deadline_s)
        except keeps as error:
            outcome = error
            self._keep(error, Stage.START)
        ended_s = time.monotonic() - self._origin
        self.stages.append(assemble.start_record(self._worker.lives, outcome, asked_s, ended_s, deadline_s))
        if report is not None:
            self._sampler.watch(self._worker.pid)
            self.threads = report.threads
        return report

    def _restart(self) -> bool:
        """A fresh worker; False, with the error kept, when even that fails."""
        self._worker.spawn()
        if self._start(keeps=Wan22Error) is None:
            self._lives_lost += 1
            return False
        return True

    def _revive(self) -> bool:
        """After a worker died in one repeat the next one gets a fresh one that has loaded again."""
        if self._worker.pid is not None or self._lives_lost >= _MAX_LIVES_LOST or not self.census:
            return False
        assert self.plan is not None
        attempt = next(a for a in self.plan.attempts if a.precision is self._active.recipe.transformer_precision)
        return self._restart() and self._load(attempt, attempt_number=self._worker.lives, last=True)

    def _load(self, attempt: QuantizationAttempt, *, attempt_number: int, last: bool) -> bool:
        # every life of the worker loads once: the number of the life tells its records apart
        repeat = self._worker.lives - 1
        checkpoint = None if self.weights is None else self.weights.folder
        common: dict[str, Any] = {"attempt": attempt_number, "final": last}
        if not self._run(
            Stage.LOAD, RepeatKind.SETUP, repeat, self.spec.deadlines.load_s, checkpoint=checkpoint, **common
        ):
            return False
        if self.spec.opaque is not None:
            return True
        return self._run(
            Stage.QUANTIZE, RepeatKind.SETUP, repeat, attempt.deadline_s, precision=attempt.precision.value, **common
        )

    def _run(
        self,
        stage: Stage,
        kind: RepeatKind,
        repeat: int,
        deadline_s: float,
        *,
        attempt: int = 1,
        final: bool = True,
        **arguments: Any,
    ) -> bool:
        """One stage: sampled, recorded; its failure kept as the run's unless a fallback follows."""
        self._sampler.sample_now()
        common: dict[str, Any] = {"stage": stage, "kind": kind, "repeat": repeat, "attempt": attempt}
        common |= {"started_s": time.monotonic() - self._origin, "deadline_s": deadline_s}
        try:
            result = self._worker.stage(stage.value, deadline_s, **arguments)
        except Wan22Error as error:
            self._record_failure(common, error, final=final)
            return False
        self._record_success(common, result)
        return True

    def _record_failure(self, common: dict[str, Any], error: Wan22Error, *, final: bool) -> None:
        ended_s = time.monotonic() - self._origin
        self.stages.append(
            StageRecord(
                **common, ended_s=ended_s, status=StageStatus.FAILED, error_code=error.code, error=error.message
            )
        )
        if final or not isinstance(error, _FALLS_BACK_ON):
            self._keep(error, common["stage"])
        if isinstance(error, WorkerError) and self._worker.pid is None:
            self._lives_lost += 1
            self._sampler.watch(None)

    def _record_success(self, common: dict[str, Any], result: StageResult) -> None:
        self._sampler.sample_now()
        started_s, ended_s = common["started_s"], time.monotonic() - self._origin
        sampled = [sample for sample in self._sampler.samples if started_s <= sample.t_s <= ended_s]
        self.census = result.census or self.census
        self.attention_backend = result.attention_backend or self.attention_backend
        self.stages += assemble.stage_records(
            {**common, "ended_s": ended_s},
            result.model_dump(exclude={"components", "census", "attention_backend"}),
            result.components,
            peaks(sampled, started_s, ended_s),
            samples=len(sampled),
            rate_hz=achieved_rate_hz(sampled, started_s, ended_s),
        )

    def _keep(self, error: Wan22Error, stage: Stage | None) -> None:
        """The first error is what broke the run."""
        if self.error is None:
            log = str(self.folder.log)
            self.error = RunError(code=error.code, message=error.message, next=error.next_action, stage=stage, log=log)
