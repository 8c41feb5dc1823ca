"""Plain functions and closures, measured where they live: in the caller's process, without deadlines."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wan22core.api.results import Measured
from wan22core.errors import CudaOutOfMemoryError, StageFailedError, Wan22Error, WrongFrameCountError
from wan22core.hardware.detect import detect
from wan22core.hardware.nvml import open_gpu
from wan22core.model.outputs import check_frames
from wan22core.model.video import probe_video, write_video
from wan22core.records import HardwareProfile, RepeatKind, RunError, Stage, StageRecord, StageStatus
from wan22core.session import assemble
from wan22core.session.folder import RunFolder
from wan22core.session.locks import DeviceLock
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec
from wan22core.telemetry.sampler import Sampler, achieved_rate_hz, peaks
from wan22core.worker import host
from wan22core.worker.device_memory import DeviceMemory, NoDeviceMemory, device_memory
from wan22core.worker.engine import call_with_known_arguments, frames_of
from wan22core.worker.messages import StageResult

Facts = dict[str, Any]
Action = Callable[[], Callable[[], Facts]]
"""What is timed; it returns the check of its result, which is not."""

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
        self._lock.release()
        self._sampler.stop()

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
            return lambda: _checked_file(path, self.spec)

        self._stage(Stage.GENERATE, RepeatKind.MEASURED, repeat, generated)
        self._stage(Stage.WRITE, RepeatKind.MEASURED, repeat, written)

    def _meet_torch(self) -> None:
        """From the moment that this process has torch, its device's memory is read. It is never imported from here."""
        if self._torch_was_met or not host.torch_is_loaded():
            return
        self._torch_was_met = True
        facts = host.torch_facts()
        self.device = host.resolve_device(self.spec.device, facts)
        self.hardware = detect(self._settings.data_dir, facts)
        gpu = assemble.gpu_of(self.hardware, self.device)
        if gpu is not None and gpu.uuid.value is not None:
            self._lock.acquire(gpu.uuid.value)
            self._sampler.gpu = open_gpu(gpu.uuid.value)
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
        self._sampler.sample_now()
        started_s = self._now_s()
        common: dict[str, Any] = {"stage": stage, "kind": kind, "repeat": repeat, "started_s": started_s}
        try:
            result = self._timed(action)
        except Exception as error:  # noqa: BLE001 - own functions raise anything; each becomes a named failure
            _log.warning("The stage %s failed.", stage.value, exc_info=error)
            known = error if isinstance(error, Wan22Error) else _named(error, stage)
            self.error = RunError(code=known.code, message=known.message, next=known.next_action, stage=stage, log=None)
            common |= {"ended_s": self._now_s(), "error_code": known.code, "error": known.message}
            self.stages.append(StageRecord(**common, status=StageStatus.FAILED))
            return
        self._sampler.sample_now()
        common["ended_s"] = ended_s = self._now_s()
        sampled = [sample for sample in self._sampler.samples if started_s <= sample.t_s <= ended_s]
        self.stages += assemble.stage_records(
            common,
            result.model_dump(exclude={"components", "census", "attention_backend"}),
            result.components,
            peaks(sampled, started_s, ended_s),
            samples=len(sampled),
            rate_hz=achieved_rate_hz(sampled, started_s, ended_s),
        )

    def _timed(self, action: Action) -> StageResult:
        """Seconds by ``perf_counter`` with the device synchronised on both sides; the check is outside them."""
        self._memory.synchronize()
        self._memory.begin()
        began = time.perf_counter()
        verify = action()
        self._memory.synchronize()
        wall_s = time.perf_counter() - began
        measured = self._memory.end()
        memory = asdict(measured) | {"memory_end": measured.end}
        del memory["end"]
        return StageResult(wall_s=wall_s, **memory, **verify())

    def _now_s(self) -> float:
        return time.monotonic() - self._origin


def _checked_file(path: Path, spec: BenchmarkSpec) -> Facts:
    """Reads the written file back: it must hold the frames that were asked for."""
    asked, found = spec.workload, probe_video(path)
    if (found.frames, found.width, found.height) != (asked.frames, asked.width, asked.height):
        raise WrongFrameCountError(
            f"{path} holds {found.frames} frames of {found.width}x{found.height}; "
            f"{asked.frames} of {asked.width}x{asked.height} were written.",
            next_action="Reinstall av, then run again.",
        )
    return {"frames_produced": found.frames}


def _named(error: Exception, stage: Stage) -> Wan22Error:
    """torch's out of memory by its class, the rest as a failed stage."""
    text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:500]}"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return CudaOutOfMemoryError(
            f"The device ran out of memory in {stage.value}: {text}",
            next_action="Choose a smaller workload, or free the device.",
        )
    return StageFailedError(
        f"The stage {stage.value} failed with {text}", next_action="The traceback is in this process's log."
    )
