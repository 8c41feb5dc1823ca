"""A run as Markdown, for a pull request or a Prefect artifact."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from wan22core.records import RunRecord
from wan22core.report import view

_MARKS = re.compile(r"([\\`*_\[\]|~])")


_LIMITS = ("limit", "worst", "median", "verdict", "why")


def to_markdown(record: RunRecord) -> str:
    """The whole report; every text in it is escaped."""
    parts = [f"# {safe(record.summary)}", *(safe(remark) for remark in view.remarks(record))]
    if record.error is not None:
        parts += ["## What broke", safe(record.error.message), safe(record.error.next)]
    parts += _section("Targets", ("target", *_LIMITS), view.target_rows(record.targets))
    parts += ["## Integrity", f"{record.integrity.evaluated} expectations: {record.integrity.verdict}."]
    if integrity := view.failures(record):
        parts.append("\n".join(f"- {safe(failure)}" for failure in integrity))
    compared = ("metric", "baseline", "this run", "verdict", "difference")
    parts += _section("Beside the baseline", compared, view.regression_rows(record))
    watched = ("quantity", "level", "threshold", "worst", "when", "what was done")
    parts += _section("Health", watched, view.alerts(record))
    advice = ("rule", "because", "action", "expected", "explained in")
    parts += _section("Recommendations", advice, view.recommendations(record))
    parts += ["## Smoke limits", "They exercise the judging and say nothing about a card."]
    parts.append(markdown_table(("limit of tiny", *_LIMITS), view.target_rows(record.smoke_limits)))
    stages = ("stage", "median", "MAD", "min", "max", "n", "warm-up", "peak memory")
    parts += _section("Stages", stages, _stages(record))
    parts += _section("Loading", ("component", "time", "bytes", "rate"), view.component_rows(record))
    parts += _section("What was run", ("", ""), view.facts(record))
    asked = ("setting", "asked", "read back", "holds", "why")
    parts += _section("Host settings: asked, read back", asked, view.host_settings(record))
    parts += _section("Environment", ("", ""), view.environment(record))
    parts += ["## Again", f"```sh\n{record.command.replace('```', '')}\n```"]
    return "\n\n".join(parts) + "\n"


def _section(heading: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading and its table; nothing where there is no row."""
    return [f"## {heading}", markdown_table(head, rows)] if rows else []


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
