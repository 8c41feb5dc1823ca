"""Progress on a terminal: one line on stderr with the stage, bytes or steps, and the time it has taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wan22core.records import Progress

if TYPE_CHECKING:
    from flows.progress import OnProgress

_MIB = 2**20


@contextmanager
def progress_line(*, wanted: bool = True) -> Iterator[OnProgress | None]:
    """A callback that moves a bar; None, and no output, where stderr is no terminal."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("starting", total=None, detail="worker and Prefect server")
        current = "starting"

        def show(progress: Progress) -> None:
            nonlocal current
            if progress.stage != current:
                current = progress.stage
                bar.reset(task, description=current, total=None, detail="")
            total = None if progress.fraction is None else 1.0
            bar.update(task, completed=progress.fraction or 0.0, total=total, detail=_detail(progress))

        yield show


def _detail(progress: Progress) -> str:
    if progress.steps is not None:
        return f"step {progress.step} of {progress.steps}"
    if progress.bytes_total is not None and progress.bytes_done is not None:
        return f"{progress.bytes_done / _MIB:,.0f} of {progress.bytes_total / _MIB:,.0f} MiB"
    return ""
