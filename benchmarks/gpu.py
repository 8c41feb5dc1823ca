"""Recipes beside each other through the session alone, without Prefect and Great Expectations: it needs only torch.

Usage: python benchmarks/gpu.py [RECIPE ...] [--model ti2v-5b] [--workload 2s-720p] [--steps N] [--rounds N]
                                [--vram-limit-mib N] [--device D] [--budget-s S] [--out FILE]

Each measurement is a fresh process that makes one video, or more with --repeats. A round measures every recipe once;
every other round goes backwards, so that a drift meets all of them. What was measured is a line of FILE at once: the
same command goes on from there. Prints a Markdown table with ratios against the first recipe; exits 4 when a run broke,
5 when its memory readings are out of order.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from wan22core.errors import UserInputError, Wan22Error
from wan22core.files import LineWriter, whole_lines
from wan22core.recipes import recipe
from wan22core.records import Labels, Record, RepeatKind, RepeatRow, StageRecord
from wan22core.session.assemble import repeat_rows
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.labels import environment, labels_of
from wan22core.session.order import generations
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.specs import WORKLOADS, BenchmarkSpec, Weights
from wan22core.statistics import Ratio, ratio_of_medians, summarize

TOLERANCE_MIB = 64
SECONDS = ("load_s", "start_to_video_s", "generation_s", "step_median_s")
PEAKS = ("peak_allocated_mib", "peak_reserved_mib", "peak_process_mib", "peak_device_mib", "peak_rss_mib")


class Asked(Record):
    """What the lines of one file have in common."""

    model: str
    workload: str
    steps: int
    repeats: int
    device: str
    vram_limit_mib: int | None


class Measured(Record):
    """One measurement."""

    recipe: str
    round: int
    wall_s: float
    """Seconds that it took with all that is around it, which the budget counts with."""
    run_dir: str
    labels: Labels
    environment: dict[str, str | None]
    rows: list[RepeatRow]
    out_of_order: list[str]
    """Stages whose memory readings can't be true."""
    error: str | None

    def values(self, metric: str) -> list[float]:
        """Of the measured videos; none of a run that broke."""
        found = [getattr(row, metric) for row in self.rows if row.kind is RepeatKind.MEASURED and self.error is None]
        return [value for value in found if value is not None]


class Line(Record):
    """A line of the file: its head, or a measurement."""

    asked: Asked | None = None
    measured: Measured | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the file lacks, as far as the budget goes, and prints the table of all that is there."""
    options = parsed(arguments)
    asked = Asked(**{name: getattr(options, name) for name in Asked.model_fields})
    began, done = time.monotonic(), read(options.out, asked)
    writer = LineWriter(options.out)
    if writer.is_empty:
        writer.write(Line(asked=asked).model_dump_json())
    left = [pair for pair in order(options.recipes, options.rounds) if pair not in {(m.round, m.recipe) for m in done}]
    for number, (round_, name) in enumerate(left):
        if number and time.monotonic() - began + expected_s(name, done) > options.budget_s:
            print(f"{len(left) - number} measurements are left when the budget ends: run the same command again.\n")
            break
        done.append(measure(asked, name, round_))
        writer.write(Line(measured=done[-1]).model_dump_json())
        writer.flush(sync=True)
    writer.close()
    print(table(asked, options.recipes, done))
    broken = [each for each in done if each.error is not None]
    for each in broken:
        print(f"{each.recipe}, round {each.round}: {each.error}", file=sys.stderr)
    return 4 if broken else 5 if any(each.out_of_order for each in done) else 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["reference"], metavar="RECIPE")
    parser.add_argument("--model", default="ti2v-5b")
    parser.add_argument("--workload", default="2s-720p", choices=sorted(WORKLOADS))
    parser.add_argument(
        "--steps", type=positive, help="fewer than the workload has: generations are scaled, and it says so"
    )
    parser.add_argument("--repeats", type=positive, default=1, help="videos in one process")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--vram-limit-mib", type=int)
    parser.add_argument("--budget-s", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    options = parser.parse_args(arguments)
    for name in options.recipes:
        recipe(name)
    options.steps = options.steps or WORKLOADS[options.workload].steps
    return options


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def read(path: Path, asked: Asked) -> list[Measured]:
    """What an earlier call left; ``UserInputError`` for a file of something else."""
    lines = [Line.model_validate_json(line) for line in whole_lines(path)] if path.exists() else []
    if lines and lines[0].asked != asked:
        raise UserInputError(
            f"{path} holds other measurements: {lines[0].asked!r}.", next_action="Name another file with --out."
        )
    return [line.measured for line in lines if line.measured is not None]


def order(recipes: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """(round, recipe), every other round backwards."""
    return [(number, name) for number in range(rounds) for name in (recipes if number % 2 == 0 else recipes[::-1])]


def expected_s(name: str, done: Sequence[Measured]) -> float:
    """The longest that this recipe took so far, or any where it has not run yet."""
    own = [each.wall_s for each in done if each.recipe == name]
    return max(own or [each.wall_s for each in done])


def spec_of(asked: Asked, name: str) -> BenchmarkSpec:
    workload = WORKLOADS[asked.workload]
    if asked.steps != workload.steps:
        workload = workload.model_copy(update={"name": f"{workload.name}-{asked.steps}steps", "steps": asked.steps})
    return BenchmarkSpec(
        workload=workload,
        weights=Weights(model=asked.model),
        recipe=recipe(name),
        repeats=asked.repeats,
        warmups=0,
        device=asked.device,
        vram_limit_mib=asked.vram_limit_mib,
    )


def measure(asked: Asked, name: str, round_: int) -> Measured:
    """One recipe in a fresh process."""
    began, settings, spec = time.monotonic(), Settings(), spec_of(asked, name)
    folder = new_run_folder(settings.runs_path, new_run_id())
    recording = Recording.new(folder, spec, "python benchmarks/gpu.py", interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        hardware = session.detect_hardware()
        session.prepare_weights()
        session.set_up_quantization()
        session.load_model()
        for kind, repeat in generations(spec):
            session.generate(kind, repeat)
        session.finish_measuring()
        gpu = hardware.gpu_of(session.device)
        return Measured(
            recipe=name,
            round=round_,
            wall_s=time.monotonic() - began,
            run_dir=str(folder.path),
            labels=labels_of(session),
            environment=environment(session),
            rows=repeat_rows(spec, session.stages, gpu.vram_total_mib.value if gpu else None),
            out_of_order=[stage.stage.value for stage in session.stages if not in_order(stage)],
            error=None if session.error is None else f"{session.error.message} {session.error.next}",
        )


def in_order(stage: StageRecord) -> bool:
    """allocated <= reserved <= process <= device of the readings that are there, taken at one moment."""
    end = stage.memory_end
    present = [x for x in (end.allocated_mib, end.reserved_mib, end.process_mib, end.device_mib) if x is not None]
    return all(lower <= upper + TOLERANCE_MIB for lower, upper in pairwise(present))


def table(asked: Asked, recipes: Sequence[str], done: Sequence[Measured]) -> str:
    """Medians of times, highest peaks, and how many times faster than the first recipe, in one environment."""
    last = done[-1]
    counted = [m for m in done if (m.environment, m.labels.host) == (last.environment, last.labels.host)]
    versions = ", ".join(f"{name} {value}" for name, value in last.environment.items() if value is not None)
    ceiling = "no ceiling" if asked.vram_limit_mib is None else f"an emulated ceiling of {asked.vram_limit_mib} MiB"
    full = WORKLOADS[asked.workload].steps
    lines = [
        f"{last.labels.device_name}, {asked.model} {asked.workload}, {asked.steps} steps, {ceiling}, weights "
        f"{last.labels.weights_source}; {versions}\n",
    ]
    if len(counted) < len(done):
        lines.append(f"{len(done) - len(counted)} measurements of another environment are left out.\n")
    heads = [
        "recipe", "processes", "ran as", "load s", "start to video s", "generation s", "step s",
        *([f"generation s, scaled to {full} steps"] if asked.steps != full else []),
        "allocated MiB", "reserved MiB", "process MiB", "device MiB", "resident MiB",
        "times faster, start to video", "times faster, step", "order of readings",
    ]  # fmt: skip
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    first = [each for each in counted if each.recipe == recipes[0]]
    for name in recipes:
        own = [each for each in counted if each.recipe == name]
        lines.append(f"| {' | '.join(cells(name, own, first, full - asked.steps))} |")
    return "\n".join(lines)


def cells(name: str, own: Sequence[Measured], first: Sequence[Measured], steps_left_out: int) -> list[str]:
    medians = [summarize(values(own, metric)).median for metric in SECONDS]
    peaks = [summarize(values(own, metric)).maximum for metric in PEAKS]
    ran_as = sorted({f"{m.labels.precision_actual} {m.labels.placement}, {m.labels.attention_backend}" for m in own})
    broke = sum(each.error is not None for each in own)
    generation_s, step_s = medians[2], medians[3]
    scaled = None if generation_s is None or step_s is None else generation_s + steps_left_out * step_s
    wrong = sorted({stage for each in own for stage in each.out_of_order})
    return [
        name,
        f"{len(own)}" + (f", {broke} broke" if broke else ""),
        "; ".join(ran_as) or "not measured",
        *(shown(each, 3) for each in medians),
        *([shown(scaled, 3)] if steps_left_out else []),
        *(shown(each, 0) for each in peaks),
        *(faster(values(first, metric), values(own, metric)) for metric in ("start_to_video_s", "step_median_s")),
        ", ".join(wrong) or "true",
    ]


def values(measured: Sequence[Measured], metric: str) -> list[float]:
    return [value for each in measured for value in each.values(metric)]


def faster(first: Sequence[float], own: Sequence[float]) -> str:
    """Ratio of the medians; its 95 % interval from two values on each side on."""
    if min(len(first), len(own)) < 2:
        medians = summarize(first).median, summarize(own).median
        return "not measured" if medians[0] is None or not medians[1] else f"{medians[0] / medians[1]:.2f}"
    ratio: Ratio = ratio_of_medians(first, own)
    return f"{ratio.mid:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def shown(value: float | None, digits: Literal[0, 3]) -> str:
    return "not measured" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wan22Error as error:
        sys.exit(f"{error.message}\n{error.next_action}")
