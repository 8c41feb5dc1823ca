"""``wan22 validate``: whether the system does on this machine what it should."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.output import interrupt_is_handled, show
from flows.cli.progress import progress_line
from wan22core.errors import InsufficientDiskSpaceError, StorageError
from wan22core.settings import Settings

if TYPE_CHECKING:
    from wan22core.records import ValidationReport

_INTERRUPTED = 130
_LISTED = 20


@click.command(epilog="Example: wan22 validate --category rtx_4080 --category threadripper_pro --json")
@click.option("--category", "categories", multiple=True, help="Of this category only; may be given again.")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Validate the machine of this folder of dumps.")
@click.option("--history", is_flag=True, help="List the validations so far instead.")
@click.option("--limit", type=click.IntRange(1, 10_000), help=f"With --history: at most so many, else {_LISTED}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def validate(
    context: click.Context,
    categories: tuple[str, ...],
    folder: Path | None,
    history: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Check that the system does on this machine what it should, and say what to do where it does not.

    Exits 1 when a check failed or broke, else 0; what could not be measured is listed with its reason.
    """
    if history:
        if categories or folder is not None:
            raise click.UsageError("--history lists all validations: leave out --category and --from.", context)
        _list(limit or _LISTED, as_json=as_json)
        return
    if limit is not None:
        raise click.UsageError("--limit is for --history: leave it out, or add --history.", context)
    from wan22core.records import VerdictValue
    from wan22core.validation.runner import validate as validated
    from wan22core.validation.text import to_text

    settings = Settings()
    with progress_line() as on_progress:
        report = validated(settings, categories, folder, on_progress)
    interrupt_is_handled()
    _keep(report, settings)
    show(report.model_dump(mode="json"), as_json=as_json, text=lambda: to_text(report))
    context.exit(_INTERRUPTED if report.interrupted else int(report.verdict is VerdictValue.FAIL))


def _keep(report: ValidationReport, settings: Settings) -> None:
    """As a file and in the history. Where one can't be written, the report is printed all the same."""
    from wan22core.history.validations import store_validation
    from wan22core.validation.document import write_report

    keeping: dict[str, Callable[[], None]] = {
        "its folder": partial(write_report, report, settings),
        "the history": partial(store_validation, settings.history_url, report),
    }
    for where, keep in keeping.items():
        try:
            keep()
        except (StorageError, InsufficientDiskSpaceError) as error:
            click.echo(
                f"wan22: {error.message}\n       The validation is not in {where}: {error.next_action}", err=True
            )


def _list(limit: int, *, as_json: bool) -> None:
    from wan22core.history.validations import list_validations

    found = list_validations(Settings().history_url, limit)
    lines = [f"{each.id}  {each.verdict.value:<12} {_rate(each.success_rate):>5} passed  {each.host}" for each in found]
    document = {"validations": [each.model_dump(mode="json") for each in found]}
    show(document, as_json=as_json, text=lambda: "\n".join(lines) or "No validations yet.")


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:.0%}"
