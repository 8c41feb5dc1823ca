"""The bars of the project, held against files of measurements: each holds, does not hold, or was not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.against_stock.sides import (
    Files,
    NotMeasured,
    Side,
    cold_floor,
    constant,
    decode,
    light,
    longest_stage,
    of,
    paired,
    peak_within,
)
from wan22core.records import Record
from wan22core.statistics import Ratio, ratio_of_medians

PAIRS = 5
"""Fewer alternating pairs carry no verdict."""
C12, C8, C6, C4 = 12_288, 8192, 6144, 4096
"""The emulated ceilings, MiB."""

Verdict = Literal["holds", "does not hold", "not measured", "reported"]


class Judged(Record):
    """One figure beside its bar."""

    figure: str
    value: str
    bar: str
    goal: str
    verdict: Verdict
    reason: str | None = None
    """Why it was not measured."""


@dataclass(frozen=True)
class Limit:
    """A bar or a goal; it is reached when the 95 % interval reaches it."""

    number: float
    at_least: bool = True

    def is_reached(self, ratio: Ratio) -> bool:
        return ratio.high >= self.number if self.at_least else ratio.low <= self.number

    def shown(self, show: Callable[[float], str]) -> str:
        return f"{'>=' if self.at_least else '<='} {show(self.number)}"


@dataclass(frozen=True)
class Bar:
    """The median of ``above`` by that of ``below``, and what it has to be. Without a bar it is reported."""

    figure: str
    above: Side
    below: Side
    bar: Limit | None
    goal: Limit | None
    show: Callable[[float], str]
    remark: Callable[[Files], str] = lambda _files: ""

    def judged(self, files: Files) -> Judged:
        """Not measured where a side is missing, or there are fewer than five pairs of them."""
        words = {"bar": self.bar, "goal": self.goal}
        texts = {name: "" if limit is None else limit.shown(self.show) for name, limit in words.items()}
        try:
            above, below = paired(self.above(files), self.below(files))
            if (count := min(len(above), len(below))) < PAIRS:
                raise NotMeasured(f"{count} of {PAIRS} pairs")
        except NotMeasured as missing:
            return Judged(figure=self.figure, value="", **texts, verdict="not measured", reason=str(missing))
        ratio = ratio_of_medians(above, below)
        value = f"{self.show(ratio.mid)} [{self.show(ratio.low)}, {self.show(ratio.high)}], n = {count}"
        if self.goal is not None:
            texts["goal"] += ", reached" if self.goal.is_reached(ratio) else ", not reached"
        verdict: Verdict = "reported"
        if self.bar is not None:
            verdict = "holds" if self.bar.is_reached(ratio) else "does not hold"
        return Judged(figure=self.figure, value=value + self.remark(files), **texts, verdict=verdict)


@dataclass(frozen=True)
class Runs:
    """A recipe makes its videos, and the process stays under the ceiling."""

    recipe: str
    ceiling_mib: int

    def judged(self, files: Files) -> Judged:
        figure, bar = f"{self.recipe} runs under {self.ceiling_mib:,} MiB", f"<= {self.ceiling_mib:,} MiB, no error"
        try:
            peak_mib, error = peak_within(files, self.recipe, self.ceiling_mib)
        except NotMeasured as missing:
            return Judged(figure=figure, value="", bar=bar, goal="", verdict="not measured", reason=str(missing))
        holds = error is None and peak_mib <= self.ceiling_mib
        value = error if error is not None else f"{peak_mib:,.0f} MiB of the process"
        return Judged(figure=figure, value=value, bar=bar, goal="", verdict="holds" if holds else "does not hold")


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


_START, _STEP, _LOAD = "start_to_video_s", "step_median_s", "load_s"
BARS: tuple[Bar | Runs, ...] = (
    Bar(
        "start to video under 12,288 MiB: stock_low_vram / safe_12g",
        of("stock_low_vram", _START, C12, cache="warm"), of("safe_12g", _START, C12, cache="warm"),
        Limit(2.0), Limit(2.5), _times,
    ),
    Bar(
        "start to video: stock_tuned without a ceiling / safe_12g under 12,288 MiB",
        of("stock_tuned", _START, cache="warm"), of("safe_12g", _START, C12, cache="warm"),
        None, Limit(1.3), _times,
    ),
    Bar(
        "start to video under 12,288 MiB, page cache cold: safe_12g",
        of("safe_12g", _START, C12, cold=True), constant(1.0), None, None, _seconds,
        lambda files: longest_stage(files, "safe_12g", C12),
    ),
    Bar(
        "load, warm: stock_tuned (device_map) / fast",
        of("stock_tuned", _LOAD, cache="warm"), of("fast", _LOAD, cache="warm"), Limit(3.0), Limit(6.0), _times,
    ),
    Bar(
        "load, cold: fast / the best of 1, 4, 16 threads of direct reads",
        of("fast", _LOAD, cold=True), cold_floor("fast"),
        Limit(1.25, at_least=False), Limit(1.1, at_least=False), _times,
    ),
    Bar(
        "one step, fp8: stock_default / safe_12g",
        of("stock_default", _STEP), of("safe_12g", _STEP, precision="float8"), Limit(1.8), Limit(2.1), _times,
    ),
    Bar(
        "one step, bf16: stock_default / fast",
        of("stock_default", _STEP), of("fast", _STEP), Limit(1.5), Limit(1.7), _times,
    ),
    Bar(
        "one step in bf16 against its speed of light: light / fast",
        light(), of("fast", _STEP), Limit(0.77), Limit(0.88), _percent,
    ),
    Runs("low_8g", C8),
    Bar(
        "start to video: low_8g under 8,192 MiB / safe_12g under 12,288 MiB",
        of("low_8g", _START, C8, cache="warm"), of("safe_12g", _START, C12, cache="warm"),
        Limit(1.4, at_least=False), Limit(1.15, at_least=False), _times,
    ),
    Runs("low_6g", C6),
    Runs("low_4g", C4),
    Bar(
        "decode under 12,288 MiB: safe_12g",
        decode("safe_12g", C12), constant(1.0), Limit(3.3, at_least=False), Limit(2.7, at_least=False), _seconds,
    ),
)  # fmt: skip


def judge(files: Files) -> list[Judged]:
    """Every bar, by what ``files`` hold."""
    return [bar.judged(files) for bar in BARS]


def table_of_bars(judged: Sequence[Judged]) -> str:
    """As Markdown."""
    lines = ["| figure | value: median [95 %] | bar | goal | verdict |", "|---|---|---|---|---|"]
    for each in judged:
        verdict = each.verdict if each.reason is None else f"{each.verdict}: {each.reason}"
        lines.append(f"| {each.figure} | {each.value} | {each.bar} | {each.goal} | {verdict} |")
    return "\n".join(lines)
