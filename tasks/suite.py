"""What a suite does beside its runs."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks.options import LOCAL_TASK, RETRIED
from wan22core.files import write_json, write_text
from wan22core.records import RunRecord, SimilarityRecord, SuiteRecord
from wan22core.report.document import SUITE_FILE, run_document
from wan22core.report.suite import suite_markdown
from wan22core.session.cold import cool_weights
from wan22core.session.similarity import compare_pair
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec


@task(name="cool-weights", **RETRIED)
def empty_page_cache(spec: BenchmarkSpec, settings: Settings, log_path: Path) -> str | None:
    """Verified weights that the page cache gave up; why it may hold some still."""
    return cool_weights(spec, settings, log_path)


@task(name="compare-videos", **{**LOCAL_TASK, "timeout_seconds": 3700})
def compare_videos(
    before: RunRecord | None, after: RunRecord | None, log_path: Path
) -> tuple[SimilarityRecord | None, str | None]:
    """How far the second one's video lies from the first one's; or why that is not known."""
    return compare_pair(before, after, log_path)


@task(name="write-suite", **LOCAL_TASK)
def write_suite(record: SuiteRecord) -> None:
    """``suite.json`` and ``suite.md`` in the suite's folder, and the report in Prefect's UI."""
    folder, markdown = Path(record.suite_dir), suite_markdown(record)
    write_json(folder / SUITE_FILE, run_document(record))
    write_text(folder / "suite.md", markdown)
    create_markdown_artifact(key="suite", markdown=markdown)
