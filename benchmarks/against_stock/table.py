"""The table of a file of measurements, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from benchmarks.against_stock.light import COUNTED_FOR, light_s, step_flop
from benchmarks.against_stock.records import Asked, Ceiling, Ceilings, Measured, Saved, of_one_environment
from wan22core.specs import WORKLOADS
from wan22core.statistics import Ratio, ratio_of_medians, summarize

SECONDS = ("load_s", "start_to_video_s", "generation_s", "step_median_s")
PEAKS = ("peak_allocated_mib", "peak_reserved_mib", "peak_process_mib", "peak_device_mib", "peak_rss_mib")
_NOT_MEASURED = "not measured"


class Rates(NamedTuple):
    """What a step is held against: its FLOP, and its seconds at the device's ceilings; None where they don't apply."""

    step_flop: float | None
    light_s: float | None


def table(asked: Asked, recipes: Sequence[str], saved: Saved) -> str:
    """Medians of times, highest peaks, and how many times faster than the first recipe, in one environment."""
    ceilings = [ceilings_table(saved.ceilings)] if saved.ceilings is not None else []
    if not saved.measured:
        return "\n\n".join([*ceilings, "Nothing was measured."])
    counted = of_one_environment(saved.measured)
    steps_left_out = WORKLOADS[asked.workload].steps - asked.steps
    lines = [_what(asked, saved.measured[-1])]
    if len(counted) < len(saved.measured):
        lines.append(f"{len(saved.measured) - len(counted)} measurements of another environment are left out.\n")
    names = heads(asked.steps + steps_left_out if steps_left_out else None, with_rates=bool(ceilings))
    lines += [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    first = [each for each in counted if each.recipe == recipes[0]]
    rates = rates_of(asked, counted[-1], saved.ceilings) if saved.ceilings is not None else None
    for name in recipes:
        own = [each for each in counted if each.recipe == name]
        lines.append(f"| {' | '.join(cells(name, own, first, steps_left_out, rates))} |")
    return "\n\n".join([*ceilings, "\n".join(lines)])


def _what(asked: Asked, last: Measured) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in last.environment.items() if value is not None)
    ceiling = "no ceiling" if asked.vram_limit_mib is None else f"an emulated ceiling of {asked.vram_limit_mib} MiB"
    cache = ", page cache emptied before each measurement" if asked.cold else ""
    return (
        f"{last.labels.device_name}, {asked.model} {asked.workload}, {asked.steps} steps, {ceiling}{cache}, weights "
        f"{last.labels.weights_source}; {versions}\n"
    )


def heads(scaled_to_steps: int | None, *, with_rates: bool) -> list[str]:
    """The columns; ``scaled_to_steps`` where fewer were run."""
    return [
        "recipe", "processes", "ran as", "page cache", "load s", "start to video s", "generation s", "step s",
        *([f"generation s, scaled to {scaled_to_steps} steps"] if scaled_to_steps is not None else []),
        "decode s",
        *(["TFLOP/s of a step", "of the speed of light in bf16"] if with_rates else []),
        "allocated MiB", "reserved MiB", "process MiB", "device MiB", "resident MiB",
        "times faster, start to video", "times faster, step", "order of readings",
    ]  # fmt: skip


def cells(
    name: str, own: Sequence[Measured], first: Sequence[Measured], steps_left_out: int, rates: Rates | None = None
) -> list[str]:
    """One row; ``rates`` where the ceilings were measured."""
    medians = [summarize(values(own, metric)).median for metric in SECONDS]
    peaks = [summarize(values(own, metric)).maximum for metric in PEAKS]
    ran_as = sorted({f"{m.labels.precision_actual} {m.labels.placement}, {m.labels.attention_backend}" for m in own})
    broke = sum(each.error is not None for each in own)
    generation_s, step_s = medians[2], medians[3]
    scaled = None if generation_s is None or step_s is None else generation_s + steps_left_out * step_s
    decode_s = summarize([each.stages_s.get("decode") for each in own if each.error is None]).median
    wrong = sorted({stage for each in own for stage in each.out_of_order})
    return [
        name,
        f"{len(own)}" + (f", {broke} broke" if broke else ""),
        "; ".join(ran_as) or _NOT_MEASURED,
        ", ".join(sorted({each.labels.page_cache for each in own})) or _NOT_MEASURED,
        *(shown(each, 3) for each in medians),
        *([shown(scaled, 3)] if steps_left_out else []),
        shown(decode_s, 3),
        *([] if rates is None else rate_cells(step_s, rates)),
        *(shown(each, 0) for each in peaks),
        *(faster(values(first, metric), values(own, metric)) for metric in ("start_to_video_s", "step_median_s")),
        ", ".join(wrong) or "true",
    ]


def rates_of(asked: Asked, measured: Measured, ceilings: Ceilings) -> Rates:
    """Of the 5B model's shapes; another model's FLOP are not counted."""
    if measured.labels.architecture != COUNTED_FOR:
        return Rates(None, None)
    workload = WORKLOADS[asked.workload]
    return Rates(step_flop(workload), summarize(light_s(ceilings, workload)).median)


def rate_cells(step_s: float | None, rates: Rates) -> list[str]:
    """TFLOP/s of a step, and the seconds of light by those it took."""
    if step_s is None:
        return [_NOT_MEASURED] * 2
    return [
        _NOT_MEASURED if rates.step_flop is None else f"{rates.step_flop / step_s / 1e12:,.1f}",
        _NOT_MEASURED if rates.light_s is None else f"{rates.light_s / step_s:.0%}",
    ]


def ceilings_table(ceilings: Ceilings) -> str:
    """The sustained rates of the device."""
    small = "; the shapes are small, so it is no measure of the device" if ceilings.scaled_down else ""
    lines = [
        f"Ceilings of {ceilings.device_name or ceilings.device}, torch {ceilings.torch}{small}.\n",
        "| ceiling | median a second | min - max | samples | of |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_ceiling_row(each) for each in ceilings.found)])


def _ceiling_row(ceiling: Ceiling) -> str:
    found = summarize(ceiling.samples)
    words = ceiling.name.value.removesuffix("_s").split("_")
    name, unit = " ".join(words[:-1]), {"flop": ("TFLOP", 1e12), "bytes": ("GB", 1e9)}[words[-1]]
    if found.median is None or found.minimum is None or found.maximum is None:
        return f"| {name} | {_NOT_MEASURED}: {ceiling.reason} | | 0 | {ceiling.what} |"
    low, mid, high = (f"{value / unit[1]:,.3f}" for value in (found.minimum, found.median, found.maximum))
    return f"| {name} | {mid} {unit[0]} | {low} - {high} | {found.n} | {ceiling.what} |"


def values(measured: Sequence[Measured], metric: str) -> list[float]:
    return [value for each in measured for value in each.values(metric)]


def faster(first: Sequence[float], own: Sequence[float]) -> str:
    """Ratio of the medians; its 95 % interval from two values on each side on."""
    if min(len(first), len(own)) < 2:
        medians = summarize(first).median, summarize(own).median
        return _NOT_MEASURED if medians[0] is None or not medians[1] else f"{medians[0] / medians[1]:.2f}"
    ratio: Ratio = ratio_of_medians(first, own)
    return f"{ratio.mid:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def shown(value: float | None, digits: Literal[0, 3]) -> str:
    return _NOT_MEASURED if value is None else f"{value:,.{digits}f}"
