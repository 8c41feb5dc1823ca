"""One benchmark from the request to the report, as Prefect flows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.progress import ShownProgress, listener
from flows.request import BenchmarkRequest
from tasks.assertions import assert_targets
from tasks.generate import generate_video
from tasks.hardware import detect_hardware
from tasks.history import record_history
from tasks.load import load_model
from tasks.metrics import collect_metrics
from tasks.options import belted
from tasks.quantization import set_up_quantization
from tasks.report import show_report, write_report
from tasks.vram import measure_vram
from tasks.weights import prepare_weights
from wan22core.history.store import read_baseline
from wan22core.quality.gate import GatePolicy, for_gate, require_known_names
from wan22core.records import RunRecord, RunState
from wan22core.session.folder import new_run_folder, new_run_id, unfinished_run
from wan22core.session.order import generation_limit_s, generations, load_limit_s
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings

_DEFAULT = BenchmarkRequest()
_DEFAULT_POLICY = GatePolicy()
_FAILED_STATES = (RunState.INTEGRITY_FAILED, RunState.BROKEN, RunState.TARGET_MISSED)


@flow(name="benchmark")
def benchmark(request: BenchmarkRequest = _DEFAULT, run_id: str | None = None, resume: str | None = None) -> State[Any]:
    """Measures one recipe on one workload, judges it and reports it; the state is named by the verdict.

    With ``resume`` the run of that id goes on from its last finished stage, and the request is not looked at.
    """
    return state_of(run(request, run_id, resume))


@flow(name="gate")
def gate(
    request: BenchmarkRequest = _DEFAULT,
    run_id: str | None = None,
    resume: str | None = None,
    policy: GatePolicy = _DEFAULT_POLICY,
    baseline: str | None = None,
) -> State[Any]:
    """The same run, judged for a deployment: what may not count is not measured.

    ``baseline`` names a run of the history; what the policy says is compared with it.
    """
    if resume is None:  # a name that is wrong must not cost a night
        require_known_names(policy, [target.name for target in request.to_spec().targets])
    beside = read_baseline(Settings().history_url, baseline) if baseline is not None else None
    return state_of(for_gate(run(request, run_id, resume), policy, beside, datetime.now(UTC).date()))


def run(request: BenchmarkRequest, run_id: str | None, resume: str | None) -> RunRecord:
    """The order of the tasks. Errors before the measuring are raised; later ones are part of the record."""
    settings = Settings()
    with BenchmarkSession(_recording(request, run_id, resume, settings), settings, listener()) as session:
        spec = session.spec
        session.spawn_worker()
        belted(detect_hardware, spec.deadlines.start_s)(session)
        prepare_weights(session)
        plan = set_up_quantization(session)
        shown = ShownProgress(1 + spec.warmups + spec.repeats)
        belted(load_model, load_limit_s(spec, plan))(session)
        shown.advance()
        for kind, repeat in generations(spec):
            belted(generate_video, generation_limit_s(spec, plan))(session, kind, repeat)
            shown.advance()
        measure_vram(session)
        metrics = collect_metrics(session)
        record = assert_targets(session, metrics)
        report = write_report(session, record)
        if not record_history(settings, return_state=True).is_completed():
            waits = "The history can't be written; the run waits in %s and goes in with the next."
            get_run_logger().warning(waits, settings.outbox_path)
    show_report(record, report)
    return record


def _recording(request: BenchmarkRequest, run_id: str | None, resume: str | None, settings: Settings) -> Recording:
    """Of a new run, or of the one to go on with."""
    if resume is not None:
        return Recording.going_on(unfinished_run(settings.runs_path, resume), interval_s=settings.sample_interval_s)
    folder = new_run_folder(settings.runs_path, run_id or new_run_id())
    return Recording.new(folder, request.to_spec(), request.command(), interval_s=settings.sample_interval_s)


def state_of(record: RunRecord) -> State[Any]:
    """Completed or Failed, named by the verdict."""
    kind = Failed if record.verdict in _FAILED_STATES else Completed
    return kind(name=record.verdict.value, message=record.summary)
