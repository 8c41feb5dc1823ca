"""``wan22 report``: a run's report again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flows.cli.output import run_folder_of
from wan22core.files import write_text
from wan22core.records import RunRecord
from wan22core.report.document import load_run, run_document
from wan22core.settings import Settings


@click.command(epilog="Example: wan22 report 20261124T101500 --format md")
@click.argument("run_id")
@click.option("--format", "form", type=click.Choice(["html", "md", "json", "junit"]), default="md", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write it here instead of printing it.")
def report(run_id: str, form: str, out: Path | None) -> None:
    """Show the report of the run whose id begins with RUN_ID, or that lies in the folder RUN_ID."""
    folder = run_folder_of(run_id, Settings())
    text = _text(form, folder, load_run(folder))
    if out is None:
        click.echo(text)
        return
    write_text(out, text)
    click.echo(str(out))


def _text(form: str, folder: Path, record: RunRecord) -> str:
    if form == "json":
        return json.dumps(run_document(record), indent=2, ensure_ascii=False)
    if form == "junit":
        from wan22core.report.junit import to_junit

        return to_junit(record)
    if form == "html":
        from wan22core.quality.tables import read_samples
        from wan22core.report.html import to_html

        return to_html(record, read_samples(folder))
    from wan22core.report.markdown import to_markdown

    return to_markdown(record)
