"""``wan22 validate``: whether the system does on this machine what it should."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.output import show
from flows.cli.progress import progress_line
from wan22core.errors import HistoryUnavailableError
from wan22core.settings import Settings

if TYPE_CHECKING:
    from wan22core.records import ValidationReport

_INTERRUPTED = 130


@click.command(epilog="Example: wan22 validate --category rtx_4080 --category threadripper_pro --json")
@click.option("--category", "categories", multiple=True, help="Of this category only; may be given again.")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Validate the machine of this folder of dumps.")
@click.option("--history", is_flag=True, help="List the validations so far instead.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="With --history.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def validate(
    context: click.Context, categories: tuple[str, ...], folder: Path | None, history: bool, limit: int, as_json: bool
) -> None:
    """Check that the system does on this machine what it should, and say what to do where it does not.

    Exits 1 when a check failed or broke, else 0; what could not be measured is listed with its reason.
    """
    if history:
        _list(limit, as_json=as_json)
        return
    from wan22core.records import VerdictValue
    from wan22core.validation.runner import validate as validated
    from wan22core.validation.text import to_text

    settings = Settings()
    with progress_line() as on_progress:
        report = validated(settings, categories, folder, on_progress)
    _record(report, settings)
    show(report.model_dump(mode="json"), as_json=as_json, text=lambda: to_text(report))
    context.exit(_INTERRUPTED if report.interrupted else int(report.verdict is VerdictValue.FAIL))


def _record(report: ValidationReport, settings: Settings) -> None:
    """Into the history; without one the report's file is there all the same."""
    from wan22core.history.validations import store_validation

    try:
        store_validation(settings.history_url, report)
    except HistoryUnavailableError as error:
        click.echo(
            f"wan22: {error.message}\n       The validation is not in the history: {error.next_action}", err=True
        )


def _list(limit: int, *, as_json: bool) -> None:
    from wan22core.history.validations import list_validations

    found = list_validations(Settings().history_url, limit)
    lines = [f"{each.id}  {each.verdict.value:<12} {_rate(each.success_rate):>5} passed  {each.host}" for each in found]
    document = {"validations": [each.model_dump(mode="json") for each in found]}
    show(document, as_json=as_json, text=lambda: "\n".join(lines) or "No validations yet.")


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:.0%}"
