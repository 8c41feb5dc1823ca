"""``wan22 similarity``: how far the videos of two runs of one seed lie apart."""

from __future__ import annotations

import click

from flows.cli.output import run_folder_of, show
from flows.cli.progress import progress_line
from wan22core.records import SimilarityRecord, VerdictValue
from wan22core.report.suite import similarity_rows
from wan22core.report.text import table
from wan22core.session.similarity import compare_outputs
from wan22core.settings import Settings


@click.command(epilog="Example: wan22 similarity 20261124T101500 20261124T103000 --json")
@click.argument("run_a")
@click.argument("run_b")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def similarity(context: click.Context, run_a: str, run_b: str, as_json: bool) -> None:
    """Hold what RUN_B made against what RUN_A made: two runs that differ in their recipe only.

    Latents are compared always, frames where both runs were asked to --keep-frames. Exits 1 when RUN_B is farther off
    than its method may be, else 0; random weights show drift, and nothing is claimed of quality.
    """
    settings = Settings()
    with progress_line() as on_progress:
        record = compare_outputs(
            run_folder_of(run_a, settings),
            run_folder_of(run_b, settings),
            settings.logs_path / "similarity.log",
            on_progress,
        )
    show(record.model_dump(mode="json"), as_json=as_json, text=lambda: _text(record))
    context.exit(int(record.verdict is VerdictValue.FAIL))


def _text(record: SimilarityRecord) -> str:
    heading = (
        f"{record.run_b} ({record.recipe_b})",
        f"against {record.run_a} ({record.recipe_a}), {record.method.value}",
    )
    return "\n".join(table(heading, similarity_rows(record)))
