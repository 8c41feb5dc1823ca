"""The two sides of a ratio, found in files of measurements: values by round, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.against_stock.light import COUNTED_FOR, light_s
from benchmarks.against_stock.records import DIRECT_READS, Asked, Ceilings, Measured, Saved, of_one_environment, read
from wan22core.errors import UserInputError
from wan22core.specs import WORKLOADS
from wan22core.statistics import summarize

WORKLOAD = "2s-720p"
"""What the bars are about, on the architecture whose FLOP are counted."""


class NotMeasured(Exception):
    """Why a figure has no value."""


class Kind(NamedTuple):
    """What tells the files apart."""

    ceiling_mib: int | None
    cold: bool

    def __str__(self) -> str:
        ceiling = "without a ceiling" if self.ceiling_mib is None else f"under {self.ceiling_mib:,} MiB"
        return f"{ceiling}{', cold' if self.cold else ''}"


class File(NamedTuple):
    """One file; its measurements are those of one environment."""

    path: Path
    asked: Asked
    ceilings: Ceilings | None
    measured: list[Measured]


Files = dict[Kind, File]


class Values(NamedTuple):
    """One side."""

    by_round: dict[int, float]
    file: File | None = None
    """Where its rounds are those of measurements."""
    constant: float | None = None


Side = Callable[[Files], Values]


def read_files(paths: Sequence[Path]) -> Files:
    """Raises ``UserInputError`` for a file that is not there or none of ours, and for two of one kind."""
    files: Files = {}
    for path in paths:
        saved: Saved = read(path)
        if saved.asked is None:
            raise UserInputError(f"There are no measurements in {path}.", next_action="Name a file of --out.")
        kind = Kind(saved.asked.vram_limit_mib, saved.asked.cold)
        if kind in files:
            raise UserInputError(
                f"{files[kind].path} and {path} are both {kind}.", next_action="Name one file of each kind."
            )
        measured = of_one_environment(saved.measured) if saved.measured else []
        files[kind] = File(path, saved.asked, saved.ceilings, measured)
    return files


def described(files: Files) -> str:
    """A line for each file: what it holds, and that fewer steps were scaled."""
    lines = []
    for kind, file in files.items():
        steps, full = file.asked.steps, WORKLOADS[file.asked.workload].steps
        scaled = f", {steps} steps scaled to {full}" if steps != full else f", {steps} steps"
        device = file.measured[-1].labels.device_name if file.measured else "no device"
        what = f"{file.asked.model} {file.asked.workload} {kind}{scaled}"
        lines.append(f"- {file.path}: {len(file.measured)} measurements of {what}, on {device}")
    return "\n".join(lines)


def of(
    recipe: str,
    metric: str,
    ceiling_mib: int | None = None,
    *,
    cold: bool = False,
    cache: str | None = None,
    precision: str = "",
) -> Side:
    """A metric of a recipe's rows; ``cache`` and ``precision`` are what they must have run in."""

    def value(asked: Asked, measured: Measured) -> float | None:
        found = summarize(measured.values(metric)).median
        if found is None or metric != "start_to_video_s":
            return found
        step_s = summarize(measured.values("step_median_s")).median
        steps_left_out = WORKLOADS[asked.workload].steps - asked.steps
        return None if step_s is None else found + steps_left_out * step_s

    needed = "cold" if cold else cache
    return lambda files: _values(files, Kind(ceiling_mib, cold), recipe, value, cache=needed, precision=precision)


def decode(recipe: str, ceiling_mib: int) -> Side:
    """Seconds of a recipe's decode."""
    return lambda files: _values(
        files, Kind(ceiling_mib, False), recipe, lambda _asked, measured: measured.stages_s.get("decode")
    )


def light() -> Side:
    """Seconds of a step at the device's ceilings."""

    def found(files: Files) -> Values:
        ceilings = _ceilings(files)
        if ceilings.scaled_down:
            raise NotMeasured("the ceilings are those of small shapes")
        if not (seconds := light_s(ceilings, WORKLOADS[WORKLOAD])):
            raise NotMeasured("the ceiling of the products or of the attention is missing")
        return Values(dict(enumerate(seconds)))

    return found


def cold_floor(recipe: str) -> Side:
    """Seconds of reading the bytes of a recipe's load at the best rate of direct reads."""

    def found(files: Files) -> Values:
        file = _file(files, Kind(None, True))
        sizes = {each.load_bytes for each in file.measured if each.recipe == recipe and each.load_bytes}
        best = _ceilings(files).best_of(tuple(DIRECT_READS.values()))
        if best is None:
            raise NotMeasured("no direct read was measured")
        if len(sizes) != 1:
            raise NotMeasured(f"what {recipe} reads is {'not known' if not sizes else 'not one size'}")
        return Values({number: sizes.copy().pop() / rate for number, rate in enumerate(best.samples)})

    return found


def constant(number: float) -> Side:
    """The same on each round of the other side."""
    return lambda _files: Values({}, constant=number)


def paired(above: Values, below: Values) -> tuple[list[float], list[float]]:
    """Both sides; of one file the rounds that both have. Raises ``NotMeasured`` for files of two environments."""
    if above.file is not None and below.file is not None:
        if above.file.path == below.file.path:
            rounds = sorted(above.by_round.keys() & below.by_round.keys())
            return [above.by_round[each] for each in rounds], [below.by_round[each] for each in rounds]
        environments = [
            (file.measured[-1].environment, file.measured[-1].labels.host) for file in (above.file, below.file)
        ]
        if environments[0] != environments[1]:
            raise NotMeasured(f"{above.file.path} and {below.file.path} are of two environments")
    first, second = list(above.by_round.values()), list(below.by_round.values())
    return first, second if below.constant is None else [below.constant] * len(first)


def peak_within(files: Files, recipe: str, ceiling_mib: int) -> tuple[float, str | None]:
    """The highest process memory of a recipe under a ceiling, MiB, and the first error that ended one of its runs."""
    own = _own(_file(files, Kind(ceiling_mib, False)), recipe)
    errors = [each.error for each in own if each.error is not None]
    peaks = [value for each in own for value in each.values("peak_process_mib")]
    if not errors and not peaks:
        raise NotMeasured("the memory of the process could not be read")
    return max(peaks, default=0.0), errors[0] if errors else None


def longest_stage(files: Files, recipe: str, ceiling_mib: int) -> str:
    """The stage that takes most of a cold run, in words."""
    own = _own(_file(files, Kind(ceiling_mib, True)), recipe)
    stages = {name for each in own for name in each.stages_s}
    medians = {name: summarize([each.stages_s.get(name) for each in own]).median or 0.0 for name in stages}
    if not medians:
        return ""
    longest = max(medians, key=lambda name: medians[name])
    return f"; the longest stage: {longest} {medians[longest]:.2f} s"


def _values(
    files: Files,
    kind: Kind,
    recipe: str,
    value: Callable[[Asked, Measured], float | None],
    *,
    cache: str | None = None,
    precision: str = "",
) -> Values:
    """Of the rows that may be compared, by their rounds."""
    file = _file(files, kind)
    found: dict[int, float] = {}
    reasons: set[str] = set()
    for each in _own(file, recipe):
        reason, number = _why_not(each, cache, precision), value(file.asked, each)
        if reason is None and number is not None:
            found[each.round] = number
        else:
            reasons.add(reason or "has no such figure")
    if not found:
        raise NotMeasured(f"{recipe} {kind}: {', '.join(sorted(reasons))}")
    return Values(found, file)


def _why_not(measured: Measured, cache: str | None, precision: str) -> str | None:
    labels = measured.labels
    if measured.error is not None:
        return f"broke ({measured.error})"
    if not labels.comparable:
        return "fell back, was tried again or was throttled by heat"
    if cache is not None and labels.page_cache != cache:
        return f"the page cache was {labels.page_cache}, not {cache}"
    if cache == "warm" and labels.compile_cache == "cold":
        return "compiled its code, which an earlier process had not left"
    if not (labels.precision_actual or "").startswith(precision):
        return f"ran in {labels.precision_actual}"
    return None


def _file(files: Files, kind: Kind) -> File:
    if kind not in files:
        raise NotMeasured(f"no file of measurements {kind}")
    if (workload := files[kind].asked.workload) != WORKLOAD:
        raise NotMeasured(f"the bars are for {WORKLOAD}, {files[kind].path} is of {workload}")
    return files[kind]


def _own(file: File, recipe: str) -> list[Measured]:
    own = [each for each in file.measured if each.recipe == recipe]
    if not own:
        raise NotMeasured(f"{recipe} is not in {file.path}")
    if COUNTED_FOR not in (architectures := {each.labels.architecture for each in own}):
        raise NotMeasured(f"the bars are for {COUNTED_FOR}, {file.path} is of {', '.join(sorted(architectures))}")
    return own


def _ceilings(files: Files) -> Ceilings:
    """Of the first file that has them: they are the device's."""
    found = next((file.ceilings for file in files.values() if file.ceilings is not None), None)
    if found is None:
        raise NotMeasured("no file has ceilings: measure them with --ceilings")
    return found
