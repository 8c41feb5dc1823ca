"""A GPU that is too hot: the run ends at a stage's end, or at once when that takes too long; what is there is kept."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.worker.test_worker import faulty_spec, gone, started
from wan22core.errors import DeviceTooHotError, Wan22Error
from wan22core.records import AlertLevel, RepeatKind, RunState, Sample, Stage, StageStatus
from wan22core.session.finish import assert_targets, build_record, collect_metrics, write_reports
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.guard import HealthGuard
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.specs import Weights
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.replay import ReplayProbe
from wan22core.telemetry.sampler import RealClock
from wan22core.telemetry.system import SystemReader
from wan22core.telemetry.trace import Trace, TraceHeader
from wan22core.worker.client import ModelWorker

HOT = Trace(
    header=TraceHeader(how="made by hand", recorded_at=datetime(2026, 11, 24, tzinfo=UTC), gpu="none", driver=None),
    samples=(Sample(t_s=0.0, gpu_temperature_c=91.0, gpu_temperature_margin_c=-5.0),),
)


def test_a_hot_card_ends_the_run_at_the_end_of_a_stage(tiny_checkpoint: Path) -> None:
    """The first video stands, the second is not begun, the report says why."""
    settings = Settings()
    spec = faulty_spec(repeats=2, warmups=0).model_copy(update={"weights": Weights(model=str(tiny_checkpoint))})
    recording = Recording.new(new_run_folder(settings.runs_path, new_run_id()), spec, "test", interval_s=0.1)
    with BenchmarkSession(recording, settings) as session:
        session.detect_hardware()
        session.prepare_weights()
        session.set_up_quantization()
        session.load_model()
        session.generate(RepeatKind.MEASURED, 0)
        recording.sampler.gpu = ReplayProbe(HOT, RealClock())
        until = time.monotonic() + 30
        while recording.stop is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        second = session.generate(RepeatKind.MEASURED, 1)
        session.finish_measuring()
        metrics = collect_metrics(session)
        record = build_record(session, metrics, assert_targets(session, metrics))
        write_reports(session, record)
    assert {stage.status for stage in second} == {StageStatus.NOT_RUN}
    assert record.error is not None
    assert (record.verdict, record.error.code, record.error.stage) == (RunState.BROKEN, "DEVICE_TOO_HOT", Stage.ENCODE)
    assert [row.generation_s is None for row in record.repeats] == [False, True]
    (alert,) = (each for each in record.alerts if each.quantity == "gpu_temperature_margin")
    assert (alert.level, alert.worst, alert.resolved_s) == (AlertLevel.CRITICAL, -5.0, None)
    assert record.integrity.failed == []


def new_monitor() -> HealthMonitor:
    return HealthMonitor(vram_total_mib=None, on_cpu=False)


def test_a_stage_that_heats_on_is_ended(tmp_path: Path) -> None:
    """The worker is killed in the middle of a C call, and what it was asked for ends in the reason."""
    with started(ModelWorker(tmp_path / "w.log"), faulty_spec("hang:denoise")) as worker:
        worker.stage("load", 30)
        pid = worker.pid
        assert pid is not None
        guard = HealthGuard(new_monitor, SystemReader(tmp_path), worker.interrupt)
        guard.remember([Sample(t_s=float(second), gpu_temperature_margin_c=-5.0) for second in range(-60, 0)])
        assert (len(guard.alerts), guard.stop) == (1, None), "an earlier process's heat is shown, and stops nothing now"

        def heat() -> None:
            for second in range(60):
                guard.heard(Sample(t_s=float(second), gpu_temperature_margin_c=-5.0))

        threading.Timer(0.5, heat).start()
        with pytest.raises(DeviceTooHotError, match="margin is -5") as caught:
            worker.stage("denoise", 60)
        assert guard.stop is caught.value
        assert isinstance(caught.value, Wan22Error)
        assert gone(pid)
        worker.spawn()
        worker.start({"spec": faulty_spec().model_dump(mode="json")})
        worker.stage("load", 30)
