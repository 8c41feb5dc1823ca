"""The worker of a run: each of its starts and stages is sampled and recorded, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wan22core.errors import Wan22Error
from wan22core.hardware.manual import load_entries
from wan22core.planning.host_settings import HostSettings, environment_for
from wan22core.records import AppliedSetting, Census, Progress, RepeatKind, Stage
from wan22core.session import assemble
from wan22core.session.host import settings_asked
from wan22core.session.recording import Recording
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec
from wan22core.worker.client import ModelWorker
from wan22core.worker.messages import StartReport

_MAX_LIVES_LOST = 2  # a worker that dies again and again is a broken run, not bad luck


class RecordedWorker:
    """One child after the other, and what the last of them found."""

    def __init__(
        self,
        recording: Recording,
        settings: Settings,
        spec: BenchmarkSpec,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.spec = spec
        """As the next child runs it."""
        self.census: list[Census] = []
        self.attention_backend: str | None = None
        self.threads: int | None = None
        self.tf32: str | None = None
        """What torch said in the worker: its CPU threads, and whether fp32 products run as TF32."""
        self.settings_applied: list[AppliedSetting] = []
        """Host settings, read back in the worker."""
        self.ran_last: Stage | None = None
        self._recording = recording
        self._data_dir = settings.data_dir
        self._child = ModelWorker(recording.folder.log, on_progress)
        self._starts_before = recording.starts
        self._host_settings: HostSettings | None = None
        self._lives_lost = 0

    @property
    def lives(self) -> int:
        """How many children were started, in all processes of this run."""
        return self._starts_before + self._child.lives

    @property
    def is_dead(self) -> bool:
        return self._child.pid is None

    @property
    def is_lost(self) -> bool:
        """Whether it died too often to be started again."""
        return self._lives_lost >= _MAX_LIVES_LOST

    def spawn(self) -> None:
        """Starts the first child; it imports while the caller does something else."""
        self._host_settings = settings_asked(self.spec, self._data_dir)
        self._child.spawn(environment_for(self._host_settings) if self._host_settings is not None else None)

    def start(self, keeps: type[Wan22Error]) -> StartReport | None:
        """What the child found; None, with the error kept, when it ends in an error of the kind ``keeps``."""
        if self.is_dead:
            self.spawn()
        recording = self._recording
        asked_s, deadline_s = recording.now_s, self.spec.deadlines.start_s
        report: StartReport | None = None
        outcome: float | Wan22Error
        try:
            report, outcome = self._child.start(self._start_arguments(), deadline_s)
        except keeps as error:
            outcome = error
            recording.keep(error, Stage.START)
        recording.add(assemble.start_record(self.lives, outcome, asked_s, recording.now_s, deadline_s))
        if report is not None:
            recording.sampler.watch(self._child.pid)
            self.threads, self.tf32 = report.threads, report.tf32
            self.settings_applied = report.settings
        return report

    def restart(self) -> bool:
        """A fresh child; False, with the error kept, when even that fails."""
        self._child.spawn()
        if self.start(keeps=Wan22Error) is None:
            self._lives_lost += 1
            return False
        return True

    def run(
        self, stage: Stage, kind: RepeatKind, repeat: int, deadline_s: float, *, attempt: int = 1, **arguments: Any
    ) -> None:
        """One stage, recorded however it ends. Raises what ended it, or what forbids that it starts."""
        self.ran_last, recording = stage, self._recording
        if recording.stop is not None:
            recording.not_run(stage, kind, repeat)
            raise recording.stop
        recording.sampler.sample_now()
        common: dict[str, Any] = {"stage": stage, "kind": kind, "repeat": repeat, "attempt": attempt}
        common |= {"started_s": recording.now_s, "deadline_s": deadline_s}
        try:
            result = self._child.stage(stage.value, deadline_s, **arguments)
        except Wan22Error as error:
            recording.failed(common, error)
            if self.is_dead:
                self._lives_lost += 1
                recording.sampler.watch(None)
            raise
        self.census = result.census or self.census
        self.settings_applied += result.settings
        self.attention_backend = result.attention_backend or self.attention_backend
        recording.succeeded(common, result)

    def interrupt(self, why: Wan22Error) -> None:
        """From another thread: what the child is asked for, now or next, ends in ``why``, and the child with it."""
        self._child.interrupt(why)

    def close(self) -> None:
        """Ends the child, if it lives."""
        self._child.close()

    def _start_arguments(self) -> dict[str, Any]:
        preferred = load_entries(self._data_dir).preferred_gpu
        arguments = {"spec": self.spec.model_dump(mode="json"), "preferred_gpu": preferred}
        if self._host_settings is not None:
            arguments["host_settings"] = self._host_settings.model_dump(mode="json")
        return arguments
