"""One benchmark from the request to the report, as Prefect flows."""

from __future__ import annotations

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
from wan22core.records import RunRecord, RunState
from wan22core.session.finish import for_gate
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.order import generation_limit_s, generations, load_limit_s
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings

_FAILED_STATES = (RunState.INTEGRITY_FAILED, RunState.BROKEN, RunState.TARGET_MISSED)


@flow(name="benchmark")
def benchmark(request: BenchmarkRequest, run_id: str | None = None) -> State[Any]:
    """Measures one recipe on one workload, judges it and reports it; the state is named by the verdict."""
    return state_of(run(request, run_id or new_run_id()))


@flow(name="gate")
def gate(request: BenchmarkRequest, run_id: str | None = None) -> State[Any]:
    """The same run, judged for a deployment: what may not count is not measured."""
    return state_of(for_gate(run(request, run_id or new_run_id())))


def run(request: BenchmarkRequest, run_id: str) -> RunRecord:
    """The order of the tasks. Errors before the measuring are raised; later ones are part of the record."""
    spec, settings = request.to_spec(), Settings()
    folder = new_run_folder(settings.runs_path, run_id)
    with BenchmarkSession(spec, settings, folder, listener()) as session:
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
        record = assert_targets(session, metrics, request.command())
        report = write_report(session, record)
        _record(record, settings)
    show_report(record, report)
    return record


def _record(record: RunRecord, settings: Settings) -> None:
    """A night without a database loses nothing: the run waits for the next one."""
    if record_history(record, settings, return_state=True).is_completed():
        return
    from wan22core.history.store import keep_for_later

    kept = keep_for_later(record, settings.outbox_path)
    get_run_logger().warning("The history could not be written; the run waits in %s and goes in with the next.", kept)


def state_of(record: RunRecord) -> State[Any]:
    """Completed or Failed, named by the verdict."""
    kind = Failed if record.verdict in _FAILED_STATES else Completed
    return kind(name=record.verdict.value, message=record.summary)
