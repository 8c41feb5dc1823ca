"""Functions known by their dotted names, measured in a fresh process with hard deadlines."""

from __future__ import annotations

from wan22core.api.results import Measured
from wan22core.records import RepeatKind, RunRecord
from wan22core.session.finish import assert_targets, build_record, collect_metrics, write_reports
from wan22core.session.folder import RunFolder
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec


def measure(spec: BenchmarkSpec, settings: Settings, folder: RunFolder, *, generates: bool, command: str) -> Measured:
    """The stages of the session in their order; with a video the whole run is judged and reported too.

    Raises ``UserInputError`` for a function that can't be imported, ``IncompatibleHardwareError`` and
    ``DeviceBusyError``; whatever fails later is part of the result.
    """
    record: RunRecord | None = None
    recording = Recording.new(folder, spec, command, interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        session.spawn_worker()
        hardware = session.detect_hardware()
        session.set_up_quantization()
        session.load_model()
        for repeat in range(spec.repeats if generates else 0):
            session.generate(RepeatKind.MEASURED, repeat)
        session.finish_measuring()
        if generates:
            metrics = collect_metrics(session)
            record = build_record(session, metrics, assert_targets(session, metrics))
            write_reports(session, record)
        recording.complete()
    return Measured(
        measured_in="worker",
        spec=spec,
        folder=folder,
        device=session.device,
        hardware=hardware,
        stages=session.stages,
        error=session.error,
        record=record,
    )
