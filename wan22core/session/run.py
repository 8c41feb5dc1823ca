"""One benchmark run: the stages in their order, each ending in a record, whatever happens to the worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
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
from wan22core.hardware.manual import load_entries
from wan22core.hardware.probes import open_probe
from wan22core.planning.host_settings import HostSettings, environment_for
from wan22core.planning.quantization import QuantizationAttempt, QuantizationPlan, plan_quantization
from wan22core.records import (
    AppliedSetting,
    Census,
    HardwareProfile,
    MemoryPeaks,
    Progress,
    RepeatKind,
    RunError,
    Sample,
    Stage,
    StageRecord,
    Telemetry,
    WeightsRecord,
)
from wan22core.session import assemble
from wan22core.session.guard import HealthGuard
from wan22core.session.host import settings_asked
from wan22core.session.locks import DeviceLock
from wan22core.session.order import deadline_s, generation_stages, with_precision
from wan22core.session.recording import Recording
from wan22core.session.weights import prepare_weights
from wan22core.settings import Settings
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.system import SystemReader
from wan22core.worker.client import ModelWorker
from wan22core.worker.messages import StartReport

_FALLS_BACK_ON = (UnsupportedQuantizationError, StageTimeoutError, StageFailedError, SegmentationFaultError)
"""Out of memory is not among them: another precision is not what helps then."""
_MAX_LIVES_LOST = 2  # a worker that dies again and again is a broken run, not bad luck


class BenchmarkSession:
    """The worker, the sampler and the records of one run. Leaving the context ends the worker and frees the device.

    Errors of a stage do not leave the methods below: they end the run's measuring, are kept in ``error``, and the rest
    of the run (judging, history, report) goes on. What is raised is raised before anything was measured.
    """

    def __init__(
        self, recording: Recording, settings: Settings, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self.recording = recording
        self.spec = recording.header.spec
        self.folder = recording.folder
        self.settings = settings
        self.hardware: HardwareProfile | None = None
        self.weights: WeightsRecord | None = None
        self.plan: QuantizationPlan | None = None
        self.census: list[Census] = []
        self.attention_backend: str | None = None
        self.device = self.spec.device
        self.threads: int | None = None
        """CPU threads, read back from torch in the worker."""
        self.settings_applied: list[AppliedSetting] = []
        """Host settings, read back in the worker."""
        self.fell_back = False
        self._host_settings: HostSettings | None = None
        self._preferred_gpu = load_entries(settings.data_dir).preferred_gpu
        self._on_progress = on_progress
        self._worker = ModelWorker(self.folder.log, on_progress)
        self._starts_before = recording.starts
        self._lock = DeviceLock(settings.locks_path)
        self._active = self.spec
        self._lives_lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        with ExitStack() as ending:  # the last one named ends first, and each ends whatever the others raise
            ending.callback(self._lock.release)
            ending.callback(self.recording.close)
            ending.callback(self._worker.close)

    def spawn_worker(self) -> None:
        """Starts the child; it imports while the caller does something else."""
        self._host_settings = settings_asked(self.spec, self.settings.data_dir)
        self._worker.spawn(environment_for(self._host_settings) if self._host_settings is not None else None)

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
        total_mib = gpu.vram_total_mib.value if gpu is not None else None
        monitor = partial(HealthMonitor, vram_total_mib=total_mib, on_cpu=self.device == "cpu")
        guard = HealthGuard(monitor, SystemReader(self.settings.data_dir), self._worker.interrupt)
        self.recording.start_sampling(gpu, open_probe(uuid) if uuid is not None else None, guard)
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
            self.recording.not_run(Stage.LOAD, RepeatKind.SETUP, 0)
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
        """One video: the generation stages in their order. After a failure the rest is recorded as not run.

        What an earlier process of this run finished is not run again; its saved latents are decoded.
        """
        before = len(self.stages)
        done = self.recording.finished(kind, repeat)
        left = [call for call in generation_stages(self.spec, self.folder, kind, done) if call[0] not in done]
        failed = bool(left) and self.error is not None and not self._revive()
        for stage, arguments in left:
            if failed:
                self.recording.not_run(stage, kind, repeat)
            else:
                failed = not self._run(stage, kind, repeat, deadline_s(self.spec.deadlines, stage), **arguments)
        return self.stages[before:]

    def finish_measuring(self) -> MemoryPeaks:
        """Ends worker and sampler, and returns the peaks over the whole run."""
        self._worker.close()
        try:
            self.recording.sampler.stop()
        except Wan22Error as error:
            self.recording.keep(error, None)
        return assemble.merge_peaks(self.stages)

    @property
    def stages(self) -> list[StageRecord]:
        """All that ended so far, or was not run, in their order."""
        return self.recording.stages

    @property
    def error(self) -> RunError | None:
        """What broke the run, if anything did."""
        return self.recording.error

    @property
    def samples(self) -> list[Sample]:
        """Telemetry so far, in order."""
        return self.recording.sampler.samples

    def telemetry(self) -> Telemetry:
        """What the sampler did."""
        return self.recording.telemetry()

    @property
    def attempts(self) -> int:
        """How many workers were started, in all processes of this run."""
        return self._starts_before + self._worker.lives

    @property
    def foreign_process(self) -> bool | None:
        """Whether another process computed on the GPU meanwhile, as far as that can be seen."""
        return self.recording.sampler.foreign_process

    def _start(self, keeps: type[Wan22Error]) -> StartReport | None:
        """What the worker found; None, with the error kept, when it ends in an error of the kind ``keeps``."""
        if self._worker.pid is None:
            self.spawn_worker()
        asked_s, deadline_s = self.recording.now_s, self.spec.deadlines.start_s
        report: StartReport | None = None
        outcome: float | Wan22Error
        try:
            arguments = {"spec": self._active.model_dump(mode="json"), "preferred_gpu": self._preferred_gpu}
            if self._host_settings is not None:
                arguments["host_settings"] = self._host_settings.model_dump(mode="json")
            report, outcome = self._worker.start(arguments, deadline_s)
        except keeps as error:
            outcome = error
            self.recording.keep(error, Stage.START)
        self.recording.add(assemble.start_record(self.attempts, outcome, asked_s, self.recording.now_s, deadline_s))
        if report is not None:
            self.recording.sampler.watch(self._worker.pid)
            self.threads = report.threads
            self.settings_applied = report.settings
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
        lost = self._lives_lost >= _MAX_LIVES_LOST or not self.census or self.recording.stop is not None
        if self._worker.pid is not None or lost:
            return False
        assert self.plan is not None
        attempt = next(a for a in self.plan.attempts if a.precision is self._active.recipe.transformer_precision)
        return self._restart() and self._load(attempt, attempt_number=self.attempts, last=True)

    def _load(self, attempt: QuantizationAttempt, *, attempt_number: int, last: bool) -> bool:
        # every life of the worker loads once: the number of the life tells its records apart
        repeat = self.attempts - 1
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
        if self.recording.stop is not None:
            self.recording.keep(self.recording.stop, stage)
            self.recording.not_run(stage, kind, repeat)
            return False
        self.recording.sampler.sample_now()
        common: dict[str, Any] = {"stage": stage, "kind": kind, "repeat": repeat, "attempt": attempt}
        common |= {"started_s": self.recording.now_s, "deadline_s": deadline_s}
        try:
            result = self._worker.stage(stage.value, deadline_s, **arguments)
        except Wan22Error as error:
            self._failed(common, error, final=final)
            return False
        self.census = result.census or self.census
        self.settings_applied += result.settings
        self.attention_backend = result.attention_backend or self.attention_backend
        self.recording.succeeded(common, result)
        return True

    def _failed(self, common: dict[str, Any], error: Wan22Error, *, final: bool) -> None:
        self.recording.failed(common, error)
        if final or not isinstance(error, _FALLS_BACK_ON):
            self.recording.keep(error, common["stage"])
        if self._worker.pid is None:
            self._lives_lost += 1
            self.recording.sampler.watch(None)
