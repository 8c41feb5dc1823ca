"""``wan22 suite``: one recipe beside another, everything in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli.benchmark import EXIT_CODES, run_options
from flows.cli.output import quiet_logs, show
from flows.cli.progress import progress_line
from flows.request import SUITE_RECIPE, SuiteRequest, request_from
from wan22core.files import require_writable_folder
from wan22core.recipes import recipe
from wan22core.records import RunState, SuiteRecord
from wan22core.report.document import SUITE_FILE, load_suite, run_document
from wan22core.report.suite import suite_text
from wan22core.session.folder import new_run_id
from wan22core.settings import Settings, export


@click.command(epilog="Example: wan22 suite --model ti2v-5b --workload 2s-720p --recipe safe_12g --before reference")
@run_options
@click.option("--before", default="reference", show_default=True, help="The recipe that it is held against.")
@click.option("--pairs", type=click.IntRange(1, 100), default=2, show_default=True, help="Runs of each of the two.")
@click.pass_context
def suite(
    context: click.Context, /, runs_dir: Path | None, as_json: bool, before: str, pairs: int, **asked: Any
) -> None:
    """Measure cold and warm loads, videos and memory of a recipe, beside another one.

    The two alternate, each run in a fresh process. A run that breaks is part of the report. Exits 0 when the asked
    recipe's runs completed and all records are believable, 4 when one of its runs broke, 5 when records are not
    believable.
    """
    if runs_dir is not None:
        export(runs_dir=runs_dir.absolute())
    recipe(before)
    if asked["recipe"] is None and asked["spec_file"] is None:
        asked["recipe"] = SUITE_RECIPE.value
    record = _measure(SuiteRequest.model_validate({"benchmark": request_from(asked), "before": before, "pairs": pairs}))
    show(run_document(record), as_json=as_json, text=lambda: suite_text(record))
    verdicts = {record.verdict} | {step.run.verdict for step in record.steps if step.run is not None}
    unbelievable = RunState.INTEGRITY_FAILED in verdicts
    context.exit(EXIT_CODES.get(RunState.INTEGRITY_FAILED if unbelievable else record.verdict, 0))


def _measure(request: SuiteRequest) -> SuiteRecord:
    """Runs the flow against the configured Prefect API, or one of our own; what it left. Raises what ended it."""
    settings, suite_id = Settings(), new_run_id()
    request.benchmark.to_spec()
    require_writable_folder(settings.runs_path)
    with progress_line() as on_progress:
        from flows.local_server import prefect_api
        from flows.progress import listening

        with prefect_api(settings), listening(on_progress):
            from flows.suite import suite as flow

            quiet_logs()
            state = flow(request, suite_id, return_state=True)
    if not (settings.runs_path / suite_id / SUITE_FILE).exists():
        state.result(raise_on_failure=True)
    return load_suite(settings.runs_path / suite_id)
