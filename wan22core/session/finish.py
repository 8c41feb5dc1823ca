"""After the measuring: tables, verdicts, the run's document, history and reports. What was judged is saved first."""

from __future__ import annotations

from dataclasses import dataclass

from wan22core.files import write_json
from wan22core.history.store import keep_for_later
from wan22core.planning.recommend import recommend
from wan22core.quality.policy import run_state, summary
from wan22core.quality.tables import Tables, build_tables, write_parquet
from wan22core.records import (
    Judgement,
    Labels,
    RepeatRow,
    RunRecord,
    environment_key,
    series_key,
)
from wan22core.report.document import write_document
from wan22core.report.html import to_html
from wan22core.report.markdown import to_markdown
from wan22core.session import assemble
from wan22core.session.labels import environment, labels_of
from wan22core.session.run import BenchmarkSession


@dataclass(frozen=True)
class Metrics:
    """What a run measured, as rows and as tables."""

    labels: Labels
    repeats: list[RepeatRow]
    tables: Tables


def collect_metrics(session: BenchmarkSession) -> Metrics:
    """One row per repeat and per stage, the samples; ``stages.parquet`` and ``samples.parquet`` written."""
    assert session.hardware is not None, "detect_hardware comes first"
    gpu = session.hardware.gpu_of(session.device)
    repeats = assemble.repeat_rows(session.spec, session.stages, gpu.vram_total_mib.value if gpu else None)
    labels = labels_of(session)
    tables = build_tables(session.folder.run_id, labels, repeats, session.stages, session.samples)
    write_parquet(tables, session.folder.path)
    return Metrics(labels, repeats, tables)


def assert_targets(session: BenchmarkSession, metrics: Metrics) -> Judgement:
    """Both suites; the whole result is in ``validation.json`` before anything follows from it."""
    from wan22core.quality.verdict import judge

    judged = judge(
        metrics.tables,
        session.spec,
        metrics.labels,
        interval_s=session.settings.sample_interval_s,
        error=session.error,
    )
    write_json(session.folder.validation, judged.document)
    return judged.judgement


def build_record(session: BenchmarkSession, metrics: Metrics, judgement: Judgement) -> RunRecord:
    """The run's document; its files are named before they are written, because it is one of them."""
    assert session.hardware is not None
    state = run_state(judgement, session.error)
    worker = session.worker
    found = environment(session)
    record = RunRecord(
        run_id=session.folder.run_id,
        created_at=session.recording.header.created_at,
        run_dir=str(session.folder.path),
        command=session.recording.header.command,
        verdict=state,
        summary=summary(state, judgement, metrics.labels, session.error),
        spec=session.spec,
        labels=metrics.labels,
        series_key=series_key(metrics.labels),
        environment_key=environment_key(found),
        environment=found,
        hardware=session.hardware,
        integrity=judgement.integrity,
        targets=judgement.targets,
        smoke_limits=judgement.smoke_limits,
        repeats=metrics.repeats,
        stages=session.stages,
        census=worker.census,
        telemetry=session.telemetry(),
        settings=worker.settings_applied,
        alerts=session.recording.alerts,
        remarks=[session.plan.remark] if session.plan is not None and session.plan.remark is not None else [],
        error=session.error,
        files=session.folder.files(),
    )
    return record.model_copy(update={"recommendations": recommend(record, session.samples)})


def write_reports(session: BenchmarkSession, record: RunRecord) -> None:
    """``run.json`` first, then the reports made of it."""
    from wan22core.files import write_text

    folder = session.folder.path
    write_document(folder, record)
    write_text(folder / "report.md", to_markdown(record))
    write_text(folder / "report.html", to_html(record, session.samples))


def hand_over(session: BenchmarkSession, record: RunRecord) -> None:
    """The run waits for the history from now on, and not for a process that goes on with it."""
    keep_for_later(record, session.settings.outbox_path)
    session.recording.complete()
