"""Write the report; show it in Prefect's UI."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.options import LOCAL_TASK
from wan22core.records import RunRecord
from wan22core.report.markdown import to_markdown
from wan22core.session.finish import hand_over, write_reports
from wan22core.session.run import BenchmarkSession


@task(name="write-report", **LOCAL_TASK)
def write_report(session: BenchmarkSession, record: RunRecord) -> Path:
    """The files of the run folder; the run then waits for the history."""
    write_reports(session, record)
    hand_over(session, record)
    return Path(record.files["report_html"])


@task(name="show-report", **LOCAL_TASK)
def show_report(record: RunRecord, report: Path) -> None:
    """The same as artifacts: the targets as a table, the report as Markdown, a link to its file."""
    shown = ("name", "comparison", "limit", "unit", "observed", "verdict", "reason")
    create_table_artifact(
        key="targets",
        table=[target.model_dump(mode="json", include=set(shown)) for target in record.targets],
        description=record.summary,
    )
    create_markdown_artifact(key="report", markdown=to_markdown(record))
    create_link_artifact(key="report-file", link=report.as_uri(), link_text=str(report))
