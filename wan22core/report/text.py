"""A run on a terminal: the verdict, the limits, the stages, where the report is."""

from __future__ import annotations

from collections.abc import Sequence

from wan22core.records import RunRecord
from wan22core.report import view


def to_text(record: RunRecord) -> str:
    """Plain text of at most some 40 lines."""
    lines = [record.summary, ""]
    lines += table(
        ("target", "limit", "worst", "verdict"), [row[:3] + row[4:5] for row in view.target_rows(record.targets)]
    )
    reasons = sorted({target.reason for target in record.targets if target.reason})
    lines += [f"  {reason}" for reason in reasons]
    if record.regressions:
        heading = ("beside the baseline", "there", "here", "verdict", "difference")
        lines += ["", *table(heading, view.regression_rows(record))]
    if any(limit.observed is not None for limit in record.smoke_limits):
        lines += ["", "Smoke limits (they exercise the judging, and say nothing about a card):"]
        smoke = [row[:3] + row[4:5] for row in view.target_rows(record.smoke_limits)]
        lines += table(("limit of tiny", "limit", "worst", "verdict"), smoke)
    stages = [
        (stage.name, view.number(stage.seconds.median, "s"), _range(stage), view.number(stage.peak_mib, "MiB"))
        for stage in view.stage_summaries(record)
    ]
    lines += ["", *table(("stage", "median", "min .. max", "peak memory"), stages)]
    lines += [f"integrity: {failure}" for failure in view.failures(record)]
    if record.error is not None:
        lines += ["", record.error.next]
    lines += [f"health: {' '.join(cell for cell in alert if cell)}" for alert in view.alerts(record)]
    if record.recommendations:
        lines += ["", "Recommendations, the largest expected gain first:"]
        lines += [f"  {rule}: {action} {expected}" for rule, _, action, expected, _ in view.recommendations(record)]
    lines += ["", *view.remarks(record)]
    report = record.files.get("report_html")
    lines += [f"Report: {report}" if report else f"Run folder: {record.run_dir}"]
    return "\n".join(lines)


def _range(stage: view.StageSummary) -> str:
    seconds = stage.seconds
    if seconds.minimum is None or seconds.maximum is None or seconds.n < 2:
        return ""
    return f"{seconds.minimum:.3g} .. {seconds.maximum:.3g} s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of a width that holds their cells, under a heading."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    return [line(head), line(["-" * width for width in widths]), *map(line, rows)]
