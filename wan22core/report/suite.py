"""A suite as text for a terminal and as Markdown: what was saved, what it costs, every run of it."""

from __future__ import annotations

from wan22core.records import Reading, SimilarityRecord, SuiteRecord, SuiteSide, SuiteStep, VramBenchmark
from wan22core.report import view
from wan22core.report.markdown import markdown_table, safe
from wan22core.report.text import table

_SIDES = ("", "recipe", "runs that count", "peak memory", "generation, median", "error")
_PAIRS = ("pair", "first", "before", "after", "time price", "why it does not count")
_STEPS = ("run", "for", "recipe", "ended", "where")


def suite_text(record: SuiteRecord) -> str:
    """Plain text of at most some 40 lines."""
    memory = record.vram_benchmark
    lines = [record.suite_summary, "", *table(_SIDES, _sides(memory)), "", *table(_PAIRS, _pairs(memory)), ""]
    lines += [f"{name}: {value}" for name, value in _figures(record)]
    lines += ["", *table(_STEPS, _steps(record)), ""]
    lines += [record.summary, *view.remarks(record), f"Suite: {record.files['suite']}"]
    return "\n".join(lines)


def suite_markdown(record: SuiteRecord) -> str:
    """The whole report of the suite; every text in it is escaped. Each run has a report of its own."""
    memory = record.vram_benchmark
    parts = [
        f"# {safe(record.suite_summary)}",
        safe(record.summary),
        *map(safe, view.remarks(record)),
        "## Memory and time",
        markdown_table(_SIDES, _sides(memory)),
        markdown_table(("", ""), _figures(record)),
        "## Pairs",
        markdown_table(_PAIRS, _pairs(memory)),
        "## Runs",
        markdown_table(_STEPS, _steps(record)),
        "## Again",
        f"```sh\n{record.command.replace('```', '')}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def similarity_rows(found: SimilarityRecord) -> list[tuple[str, str]]:
    """What two runs' outputs have in common, as name and value."""
    latents, frames = found.latents, found.frames
    rows = [
        ("latents", "equal to the bit" if latents.bit_equal else "not equal to the bit"),
        ("cosine of the latents", _digits(latents.cosine, 7)),
        ("relative L2 error of the latents", _digits(latents.relative_l2_error, 4)),
    ]
    if frames is None:
        rows.append(("frames", f"not measured: {found.frames_reason}"))
    else:
        rows += [
            ("frames that are equal", f"{frames.equal_frames} of {frames.frames}"),
            ("PSNR, worst frame", f"{_decibel(frames.psnr_db)}, {_decibel(frames.worst_frame_psnr_db)}"),
            ("SSIM, worst frame", f"{frames.ssim:.5f}, {frames.worst_frame_ssim:.5f}"),
        ]
    if frames is not None and frames.temporal_error is not None and frames.temporal_change is not None:
        change = f"{frames.temporal_error:.3f} of 255, where A itself changes by {frames.temporal_change:.3f}"
        rows.append(("change from frame to frame", f"differs by {change}"))
    rows += [(f"threshold on {each.metric}", f">= {each.at_least:g} ({each.source})") for each in found.checks]
    rows.append(("verdict", found.verdict.value + (f": {found.reason}" if found.reason else "")))
    return [(name, f"{value}") for name, value in rows]


def _figures(record: SuiteRecord) -> list[tuple[str, str]]:
    memory, found = record.vram_benchmark, record.similarity
    missing = f"not measured: {memory.reason}"
    rows = [
        ("memory compared", memory.metric + (f" ({memory.vram_reason})" if memory.vram_reason else "")),
        (
            "saving",
            missing if memory.saving_pct is None else f"{memory.saving_mib:,.1f} MiB, {memory.saving_pct:.2f} %",
        ),
        ("time price", missing if memory.time_price_pct is None else _price(memory)),
        ("score (70 x saving - 30 x time price)", missing if memory.score is None else f"{memory.score:.2f}"),
        (f"cold load of {record.load.recipe}", _seconds(record.load.cold_s)),
        (f"warm load of {record.load.recipe}", _seconds(record.load.warm_s)),
    ]
    if found is None:
        return [*rows, ("after's video against before's", f"not measured: {record.similarity_reason}")]
    return rows + [(f"after against before: {name}", value) for name, value in similarity_rows(found)]


def _price(memory: VramBenchmark) -> str:
    spread = f"{memory.time_price_low_pct:+.2f} to {memory.time_price_high_pct:+.2f} %"
    return f"{memory.time_price_pct:+.2f} %, the median of the pairs ({spread})"


def _sides(memory: VramBenchmark) -> list[tuple[str, ...]]:
    return [_side("before", memory.before), _side("after", memory.after)]


def _side(name: str, side: SuiteSide) -> tuple[str, ...]:
    figures = (view.number(side.peak_mib, "MiB"), view.number(side.generation_s, "s"))
    return (name, side.recipe, str(side.runs), *figures, side.error or "")


def _pairs(memory: VramBenchmark) -> list[tuple[str, ...]]:
    return [
        (
            str(pair.pair),
            pair.first.value,
            view.number(pair.generation_before_s, "s"),
            view.number(pair.generation_after_s, "s"),
            "" if pair.time_price_pct is None else f"{pair.time_price_pct:+.2f} %",
            pair.reason or "",
        )
        for pair in memory.pairs
    ]


def _steps(record: SuiteRecord) -> list[tuple[str, ...]]:
    return [(str(number), *_step(step)) for number, step in enumerate(record.steps)]


def _step(step: SuiteStep) -> tuple[str, ...]:
    purpose = step.role.value.replace("_", " ") + ("" if step.pair is None else f", pair {step.pair}")
    if step.run is not None:
        return purpose, step.recipe, step.run.verdict.value, step.run.run_dir
    return purpose, step.recipe, "left no run", "" if step.error is None else step.error.message


def _seconds(reading: Reading[float]) -> str:
    return f"not measured: {reading.reason}" if reading.value is None else f"{reading.value:.3g} s ({reading.source})"


def _digits(value: float | None, digits: int) -> str:
    return "none, one side is zero" if value is None else f"{value:.{digits}g}"


def _decibel(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"
