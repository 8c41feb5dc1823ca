"""``wan22 history``: the runs so far."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from flows.cli.output import show
from wan22core.settings import Settings


@click.group()
def history() -> None:
    """The runs so far, kept in a database."""


@history.command("list", epilog="Example: wan22 history list --workload 2s-720p")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@click.option("--workload", help="Of this workload only.")
@click.option("--recipe", help="Of this recipe only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_runs(limit: int, workload: str | None, recipe: str | None, as_json: bool) -> None:
    """The newest runs first."""
    from wan22core.history.store import HistoryStore

    found = HistoryStore(Settings().history_url).list_runs(limit, workload=workload, recipe=recipe)
    lines = [
        f"{run.run_id}  {run.verdict.value:<15} {run.architecture} {run.workload} {run.recipe}  {run.device_name or ''}"
        for run in found
    ]
    show(
        {"runs": [run.model_dump(mode="json") for run in found]},
        as_json=as_json,
        text=lambda: "\n".join(lines) or "No runs yet.",
    )


@history.command("prune", epilog="Example: wan22 history prune --older-than-days 365 --yes")
@click.option("--older-than-days", type=click.IntRange(1), required=True, help="Remove what is older than this.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def prune(older_than_days: int, yes: bool) -> None:
    """Remove old runs and validations: their rows and their folders."""
    from wan22core.history.store import HistoryStore, remove_folders
    from wan22core.history.validations import remove_validations_older_than

    settings = Settings()
    if not yes:
        question = f"Remove all runs and validations older than {older_than_days} days, with their folders?"
        click.confirm(question, abort=True)
    cutoff = datetime.now(UTC) - timedelta(days=older_than_days)
    runs = HistoryStore(settings.history_url).remove_older_than(cutoff)
    validations = remove_validations_older_than(settings.history_url, cutoff)
    folders = remove_folders(settings.runs_path, runs) + remove_folders(settings.validations_path, validations)
    click.echo(f"Removed {len(runs)} runs, {len(validations)} validations and {len(folders)} folders.")


@history.group("baseline", epilog="Example: wan22 history baseline set release-1.2 20261124T101500 --note 'driver 580'")
def baseline() -> None:
    """Runs that others are compared with: wan22 gate --baseline NAME."""


@baseline.command("set")
@click.argument("name")
@click.argument("run_id")
@click.option("--note", default="", help="Why this one.")
def set_baseline(name: str, run_id: str, note: str) -> None:
    """Give the run whose id begins with RUN_ID a name; another run's name may be taken over."""
    from wan22core.history.store import HistoryStore

    found = HistoryStore(Settings().history_url).set_baseline(name, run_id, note)
    click.echo(f"{found.name}: {found.run_id}")


@baseline.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_baselines(as_json: bool) -> None:
    """All names and their runs."""
    from wan22core.history.store import HistoryStore

    found = HistoryStore(Settings().history_url).baselines()
    lines = [f"{each.name:<24} {each.run_id}  {each.promoted_at:%Y-%m-%d}  {each.note}".rstrip() for each in found]
    document = {"baselines": [each.model_dump(mode="json") for each in found]}
    show(document, as_json=as_json, text=lambda: "\n".join(lines) or "None yet: wan22 history baseline set NAME RUN_ID")


@baseline.command("rm")
@click.argument("name")
def remove_baseline(name: str) -> None:
    """Forget a name; its run stays."""
    from wan22core.history.store import HistoryStore

    HistoryStore(Settings().history_url).remove_baseline(name)
    click.echo(f"{name} is no baseline any more.")
