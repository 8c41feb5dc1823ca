"""A run as Markdown, for a pull request or a Prefect artifact."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from wan22core.records import RunRecord
from wan22core.report import view

_MARKS = re.compile(r"([\\`*_\[\]|~])")


def to_markdown(record: RunRecord) -> str:
    """The whole report; every text in it is escaped."""
    parts = [f"# {safe(record.summary)}", *(safe(remark) for remark in view.remarks(record))]
    if record.error is not None:
        parts += ["## What broke", safe(record.error.message), safe(record.error.next)]
    parts += [
        "## Targets",
        markdown_table(("target", "limit", "worst", "median", "verdict", "why"), view.target_rows(record.targets)),
    ]
    integrity = view.failures(record)
    parts += ["## Integrity", f"{record.integrity.evaluated} expectations: {record.integrity.verdict}."]
    parts += ["\n".join(f"- {safe(failure)}" for failure in integrity)] if integrity else []
    if compared := view.regression_rows(record):
        heads = ("metric", "baseline", "this run", "verdict", "difference")
        parts += ["## Beside the baseline", markdown_table(heads, compared)]
    if alerts := view.alerts(record):
        parts += [
            "## Health",
            markdown_table(("quantity", "level", "threshold", "worst", "when", "what was done"), alerts),
        ]
    if advice := view.recommendations(record):
        parts += [
            "## Recommendations",
            markdown_table(("rule", "because", "action", "expected", "explained in"), advice),
        ]
    parts += [
        "## Smoke limits",
        "They exercise the judging and say nothing about a card.",
        markdown_table(
            ("limit of tiny", "limit", "worst", "median", "verdict", "why"), view.target_rows(record.smoke_limits)
        ),
        "## Stages",
        markdown_table(("stage", "median", "MAD", "min", "max", "n", "warm-up", "peak memory"), _stages(record)),
        "## Loading",
        markdown_table(("component", "time", "bytes", "rate"), view.component_rows(record)),
        "## What was run",
        markdown_table(("", ""), view.facts(record)),
    ]
    if settings := view.host_settings(record):
        parts += [
            "## Host settings: asked, read back",
            markdown_table(("setting", "asked", "read back", "holds", "why"), settings),
        ]
    parts += [
        "## Environment",
        markdown_table(("", ""), view.environment(record)),
        "## Again",
        f"```sh\n{record.command.replace('```', '')}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _stages(record: RunRecord) -> list[tuple[str, ...]]:
    return [
        (
            stage.name,
            view.number(stage.seconds.median, "s"),
            view.number(stage.seconds.mad, "s"),
            view.number(stage.seconds.minimum, "s"),
            view.number(stage.seconds.maximum, "s"),
            str(stage.seconds.n),
            "" if stage.warmup_s is None else view.number(stage.warmup_s, "s"),
            f"{view.number(stage.peak_mib, 'MiB')} {stage.peak_of or ''}".strip(),
        )
        for stage in view.stage_summaries(record)
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([safe(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def safe(text: str) -> str:
    """No markup, no HTML, no line that breaks a table."""
    return html.escape(_MARKS.sub(r"\\\1", " ".join(text.split())), quote=False)
