"""One benchmark run: the stages in their order, each ending in a record, whatever happens to the worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from wan22core.errors import Wan22Error, WorkerError
from wan22core.hardware.detect import detect
from wan22core.hardware.probes import open_probe
from wan22core.model.quantize_preference import load_preferences
from wan22core.planning.quantization import QuantizationPlan, plan_quantization, precisions
from wan22core.records import (
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
from wan22core.session.attempts import Attempts, halves_tiles
from wan22core.session.guard import HealthGuard
from wan22core.session.locks import DeviceLock
from wan22core.session.order import StageCall, deadline_s, generation_stages, with_precision
from wan22core.session.recording import Recording
from wan22core.session.weights import prepare_weights
from wan22core.session.worker import RecordedWorker
from wan22core.settings import Settings
from wan22core.specs import AUTO_ATTENTION, Placement
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.system import SystemReader


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
        self.device = self.spec.device
        self._on_progress = on_progress
        self._lock = DeviceLock(settings.locks_path)
        self._preference = load_preferences(settings.data_dir).of(self.spec.weights.model)
        first = with_precision(self.spec, precisions(self.spec.recipe, self._preference)[0])
        self.worker = RecordedWorker(recording, settings, first, on_progress)
        """The child, and what it found."""
        self._attempts: Attempts | None = None
        self._halvings = 0
        self._decoded_again = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        with ExitStack() as ending:  # the last one named ends first, and each ends whatever the others raise
            ending.callback(self._lock.release)
            ending.callback(self.recording.close)
            ending.callback(self.worker.close)

    def spawn_worker(self) -> None:
        """Starts the child; it imports while the caller does something else."""
        self.worker.spawn()

    def detect_hardware(self) -> HardwareProfile:
        """The worker started (a stage of its own), this machine's profile by NVML and torch, the device locked.

        A worker that does not start breaks the run, and the profile is the one without torch. Raises
        ``IncompatibleHardwareError``, ``UserInputError`` and ``DeviceBusyError``; nothing was measured then.
        """
        report = self.worker.start(keeps=WorkerError)
        self.hardware = detect(self.settings.data_dir, report.torch if report is not None else None)
        self.device = report.device if report is not None else self.device
        gpu = self.hardware.gpu_of(self.device)
        uuid = gpu.uuid.value if gpu is not None else None
        if uuid is not None:
            self._lock.acquire(uuid)
        total_mib = gpu.vram_total_mib.value if gpu is not None else None
        monitor = partial(HealthMonitor, vram_total_mib=total_mib, on_cpu=self.device == "cpu")
        guard = HealthGuard(monitor, SystemReader(self.settings.data_dir), self.worker.interrupt)
        self.recording.start_sampling(gpu, open_probe(uuid) if uuid is not None else None, guard)
        return self.hardware

    def prepare_weights(self) -> WeightsRecord | None:
        """A verified checkpoint; None for a user's own functions, which bring their own."""
        if self.spec.opaque is None and self.error is None:
            self.weights = prepare_weights(self.spec.weights, self.settings, self.folder.log, self._on_progress)
        return self.weights

    def set_up_quantization(self) -> QuantizationPlan:
        """Which precisions to try, in which order, under which deadlines: the recipe's, or the user's preference."""
        size_gib = self.weights.transformer_bytes / 2**30 if self.weights is not None else 0.0
        self.plan = plan_quantization(self.spec, size_gib, self._preference)
        return self.plan

    def load_model(self) -> list[StageRecord]:
        """Loads and quantizes under the plan; each fallback from clean weights in a fresh worker."""
        assert self.plan is not None, "set_up_quantization comes first"
        before = len(self.stages)
        if self.error is not None:
            self.recording.not_run(Stage.LOAD, RepeatKind.SETUP, 0)
            return self.stages[before:]
        self._attempts = Attempts(self.plan, self.spec.recipe)
        self._attempts.follow(self.recording.earlier)
        if self._runs_as_attempted():
            self._until_loaded()
        return self.stages[before:]

    def generate(self, kind: RepeatKind, repeat: int) -> list[StageRecord]:
        """One video: the generation stages in their order. After a failure the rest is recorded as not run.

        What an earlier process of this run finished is not run again; its saved latents are decoded. Where device
        memory runs out the decode is tried again in smaller tiles, and anything else under the next placement.
        """
        before, attempt = len(self.stages), 1
        done = self.recording.finished(kind, repeat)
        left = generation_stages(self.spec, self.folder, kind, done, self._halvings)
        failed = bool(left) and self.error is not None and not self._revive()
        while left:
            stage, arguments = left.pop(0)
            if failed:
                self.recording.not_run(stage, kind, repeat)
                continue
            limit_s = deadline_s(self.spec.deadlines, stage)
            try:
                self.worker.run(stage, kind, repeat, limit_s, attempt=attempt, **arguments)
            except Wan22Error as error:
                attempt += 1
                again = self._again_after(error, stage, kind, repeat)
                failed = again is None
                left = left if again is None else again
                if failed:
                    self.recording.keep(error, stage)
        return self.stages[before:]

    def finish_measuring(self) -> MemoryPeaks:
        """Ends worker and sampler, and returns the peaks over the whole run."""
        self.worker.close()
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
        """How often something was tried: workers that were started, and decodes that were repeated in them."""
        return self.worker.lives + self._decoded_again

    @property
    def placement(self) -> Placement:
        """Where the components are, after what a fallback changed."""
        return self.worker.spec.recipe.placement

    @property
    def fell_back(self) -> bool:
        """Whether what runs is another precision, placement or attention than the recipe's."""
        active, asked = self.worker.spec.recipe, self.spec.recipe
        runs = (active.transformer_precision, active.placement)
        attention = self.worker.attention_backend or asked.attention_backend
        return runs != (asked.transformer_precision, asked.placement) or asked.attention_backend not in (
            attention,
            AUTO_ATTENTION,
        )

    @property
    def foreign_process(self) -> bool | None:
        """Whether another process computed on the GPU meanwhile, as far as that can be seen."""
        return self.recording.sampler.foreign_process

    def _revive(self) -> bool:
        """After a worker died in one repeat the next one gets a fresh one that has loaded again."""
        lost = self.worker.is_lost or not self.worker.census or self.recording.stop is not None
        if not self.worker.is_dead or lost or not self.worker.restart():
            return False
        try:
            self._load()
        except Wan22Error:
            return False
        return True

    def _again_after(self, error: Wan22Error, stage: Stage, kind: RepeatKind, repeat: int) -> list[StageCall] | None:
        """What is left of a video that is gone on with after ``error``; None where that can't help."""
        if stage is Stage.DECODE and halves_tiles(self.spec.recipe, error, self._halvings):
            self._halvings += 1
            self._decoded_again += 1
        elif self._moved_on(error, loading=False) and self._until_loaded():
            self._halvings = 0
        else:
            return None
        done = self.recording.finished(kind, repeat)
        saved = done if Stage.SAVE_LATENTS in done else ()
        return generation_stages(self.spec, self.folder, kind, saved, self._halvings)

    def _moved_on(self, error: Wan22Error, *, loading: bool) -> bool:
        """The next way that may help after ``error``, in a fresh worker."""
        can_move = self._attempts is not None and self._attempts.move_on(error, loading=loading)
        return can_move and self._runs_as_attempted()

    def _runs_as_attempted(self) -> bool:
        """The worker runs the present attempt: a fresh one where it was started for another."""
        assert self._attempts is not None
        present = self._attempts.applied_to(self.spec)
        if present == self.worker.spec:
            return True
        self.worker.spec = present
        return self.worker.restart()

    def _until_loaded(self) -> bool:
        """Loads and quantizes; False, with the error kept, when no way of doing it is left."""
        while True:
            try:
                self._load()
            except Wan22Error as error:
                if not self._moved_on(error, loading=True):
                    self.recording.keep(error, self.worker.ran_last)
                    return False
            else:
                return True

    def _load(self) -> None:
        # every life of the worker loads once: the number of the life tells its records apart
        assert self._attempts is not None
        life, number = self.worker.lives - 1, self._attempts.number
        checkpoint = None if self.weights is None else self.weights.folder
        load_s, attempt = self.spec.deadlines.load_s, self._attempts.precision
        self.worker.run(Stage.LOAD, RepeatKind.SETUP, life, load_s, attempt=number, checkpoint=checkpoint)
        if self.spec.opaque is None:
            asked = attempt.precision.value
            self.worker.run(Stage.QUANTIZE, RepeatKind.SETUP, life, attempt.deadline_s, attempt=number, precision=asked)
