"""Plain functions and closures, measured where they live: in the caller's process, without deadlines."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from wan22core.api.results import Measured
from wan22core.errors import DeviceError
from wan22core.hardware.detect import detect
from wan22core.hardware.manual import load_entries
from wan22core.hardware.probes import open_probe
from wan22core.model.outputs import check_frames
from wan22core.model.video import check_video, write_video
from wan22core.records import HardwareProfile, RepeatKind, RunError, Stage, StageRecord, StageStatus
from wan22core.session import assemble
from wan22core.session.folder import RunFolder
from wan22core.session.locks import DeviceLock
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, peaks
from wan22core.worker import host
from wan22core.worker.death import failure_of
from wan22core.worker.device_memory import DeviceMemory, NoDeviceMemory, device_memory
from wan22core.worker.engine import call_with_known_arguments, frames_of
from wan22core.worker.timing import Action, Facts, timed

_log = logging.getLogger(__name__)


def measure(
    spec: BenchmarkSpec,
    settings: Settings,
    folder: RunFolder,
    loader: Callable[[], Any],
    generator: Callable[..., Any] | None,
) -> Measured:
    """Loads once, generates ``spec.repeats`` times; a failure ends the measuring and is part of the result.

    Raises ``IncompatibleHardwareError`` and ``DeviceBusyError`` before anything was measured.
    """
    run = _Run(spec, settings, folder)
    try:
        run.start()
        run.load(loader)
        for repeat in range(spec.repeats if generator is not None else 0):
            assert generator is not None
            run.generate(generator, repeat)
    finally:
        run.close()
    return Measured("process", spec, folder, run.device, run.hardware, run.stages, run.error, None)


class _Run:
    """The records of one measuring in this process."""

    def __init__(self, spec: BenchmarkSpec, settings: Settings, folder: RunFolder) -> None:
        self.spec = spec
        self.stages: list[StageRecord] = []
        self.error: RunError | None = None
        self.device = "cpu"
        self.hardware: HardwareProfile = detect(settings.data_dir)
        self._settings = settings
        self._folder = folder
        self._origin = time.monotonic()
        self._memory: DeviceMemory = NoDeviceMemory()
        self._lock = DeviceLock(settings.locks_path)
        self._sampler = Sampler(interval_s=settings.sample_interval_s, origin_s=self._origin)
        self._torch_was_met = False
        self._model: Any = None
        self._output: Any = None

    def start(self) -> None:
        """Finds the device and starts sampling this process."""
        if self.spec.device.startswith("cuda") and not host.torch_is_loaded():
            host.resolve_device(self.spec.device, None)  # raises: it was asked for, and can't be measured
        self._meet_torch()
        self._sampler.watch(os.getpid())
        self._sampler.start()

    def close(self) -> None:
        """Ends sampling and frees the device."""
        with ExitStack() as ending:  # the last one named ends first, and each ends whatever the others raise
            ending.callback(self._lock.release)
            if self._sampler.gpu is not None:
                ending.callback(self._sampler.gpu.close)
            ending.callback(self._stop_sampling)

    def _stop_sampling(self) -> None:
        """A probe that broke is the run's error, and costs none of what was measured."""
        try:
            self._sampler.stop()
        except DeviceError as error:
            found = RunError(code=error.code, message=error.message, next=error.next_action, stage=None, log=None)
            self.error = self.error or found

    def load(self, loader: Callable[[], Any]) -> None:
        """Calls the loader."""

        def action() -> Callable[[], Facts]:
            self._model = loader()
            return dict

        self._stage(Stage.LOAD, RepeatKind.SETUP, 0, action)
        self._meet_torch()  # the loader may have been the first to import it

    def generate(self, generator: Callable[..., Any], repeat: int) -> None:
        """Calls the generator and writes its video; the check of the frames stands between the two."""
        path = self._folder.video(RepeatKind.MEASURED)

        def generated() -> Callable[[], Facts]:
            output = call_with_known_arguments(generator, self._model, self.spec.workload)
            return lambda: self._checked(output)

        def written() -> Callable[[], Facts]:
            write_video(path, self._output, self.spec.workload.fps)
            return lambda: {"frames_produced": check_video(path, self.spec.workload)}

        self._stage(Stage.GENERATE, RepeatKind.MEASURED, repeat, generated)
        self._stage(Stage.WRITE, RepeatKind.MEASURED, repeat, written)

    def _meet_torch(self) -> None:
        """From the moment that this process has torch, its device's memory is read. It is never imported from here."""
        if self._torch_was_met or not host.torch_is_loaded():
            return
        self._torch_was_met = True
        facts = host.torch_facts()
        self.device = host.resolve_device(self.spec.device, facts, load_entries(self._settings.data_dir).preferred_gpu)
        self.hardware = detect(self._settings.data_dir, facts)
        gpu = self.hardware.gpu_of(self.device)
        if gpu is not None and gpu.uuid.value is not None:
            self._lock.acquire(gpu.uuid.value)
            self._sampler.gpu = open_probe(gpu.uuid.value)
        self._memory = device_memory(self.device)

    def _checked(self, output: Any) -> Facts:
        self._output = frames_of(output)
        check_frames(self._output, self.spec.workload)
        return {"frames_produced": len(self._output), "output_finite": True, "output_constant": False}

    def _stage(self, stage: Stage, kind: RepeatKind, repeat: int, action: Action) -> None:
        """One stage, timed and recorded; nothing is run after a failure."""
        if self.error is not None:
            self.stages.append(StageRecord(stage=stage, kind=kind, repeat=repeat, status=StageStatus.NOT_RUN))
            return
        started_s = self._now_s()
        common: dict[str, Any] = {"stage": stage, "kind": kind, "repeat": repeat, "started_s": started_s}
        try:
            self._sampler.sample_now()
            result = timed(self._memory, action)
            self._sampler.sample_now()
        except Exception as error:  # noqa: BLE001 - own functions raise anything; each becomes a named failure
            _log.warning("The stage %s failed.", stage.value, exc_info=error)
            known = failure_of(error, stage.value)
            self.error = RunError(code=known.code, message=known.message, next=known.next_action, stage=stage, log=None)
            common |= {"ended_s": self._now_s(), "error_code": known.code, "error": known.message}
            self.stages.append(StageRecord(**common, status=StageStatus.FAILED))
            return
        common["ended_s"] = ended_s = self._now_s()
        sampled = [sample for sample in self._sampler.samples if started_s <= sample.t_s <= ended_s]
        self.stages += assemble.stage_records(
            common,
            result.model_dump(exclude={"components", "census", "attention_backend", "settings"}),
            result.components,
            peaks(sampled, started_s, ended_s),
            samples=len(sampled),
            rate_hz=achieved_rate_hz(sampled, started_s, ended_s),
        )

    def _now_s(self) -> float:
        return time.monotonic() - self._origin
