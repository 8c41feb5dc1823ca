"""``wan22 plan``: what a card can do, before anything is run on it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.output import show
from wan22core.errors import IncompatibleHardwareError, UnknownNameError, UserInputError
from wan22core.settings import Settings
from wan22core.specs import WORKLOADS

if TYPE_CHECKING:
    from wan22core.hardware.gpu_spec import GpuSpec
    from wan22core.planning.host_settings import HostSettings
    from wan22core.planning.planner import Candidate, Plan
    from wan22core.records import GpuProfile, MachineProfile

_REPORTED_SHARE = 0.995  # a card reports a little less than its nominal size
_KEPT_BY_SYSTEM = 0.02  # of the card, where nothing says how much is in use


@click.command(epilog='Example: wan22 plan --gpu "RTX 4080" --workload 2s-720p')
@click.option("--gpu", "gpu_name", help="A card by its name, which need not be here.")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="The machine of this folder of dumps.")
@click.option("--workload", default="2s-720p", help=f"One of {', '.join(WORKLOADS)}.  [default: 2s-720p]")
@click.option("--vram-limit-mib", type=click.IntRange(min=1), help="Stay below this much device memory.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def plan(gpu_name: str | None, folder: Path | None, workload: str, vram_limit_mib: int | None, as_json: bool) -> None:
    """Predict peak memory and time of every recipe on a card, and whether the targets would hold.

    Predictions, not measurements: the times are intervals, and what this version can't run yet is marked.
    """
    from wan22core.planning.host_settings import host_settings
    from wan22core.planning.planner import plan as made

    if workload not in WORKLOADS:
        raise UnknownNameError(
            f"There is no workload {workload!r}.", next_action=f"The workloads are: {', '.join(WORKLOADS)}."
        )
    machine, spec, vram_mib, used_mib = _card(gpu_name, folder)
    result = made(spec, vram_mib, WORKLOADS[workload], used_mib=used_mib, ceiling_mib=vram_limit_mib)
    settings = host_settings(machine.cpu, spec, vram_mib)
    show(_document(result, settings), as_json=as_json, text=lambda: _text(result, settings))


def _card(name: str | None, folder: Path | None) -> tuple[MachineProfile, GpuSpec, float, float]:
    """The machine, the card's spec, its MiB and those that others use; a named card is thought into this machine."""
    from wan22core.hardware.detect import detect
    from wan22core.hardware.gpu_specs import GPU_SPECS, find_spec

    if name is not None and folder is not None:
        raise UserInputError("--gpu names a card and --from a machine.", next_action="Give one of the two.")
    if name is None:
        return _card_of_machine(folder)
    spec = find_spec(name)
    if spec is None:
        names = [each.name.removeprefix("GeForce ") for each in GPU_SPECS]
        close = get_close_matches(name.removeprefix("NVIDIA ").removeprefix("GeForce "), names, n=3)
        raise UnknownNameError(
            f"There is no GPU {name!r} in the table.",
            next_action=f"Did you mean {' or '.join(close)}?" if close else "Give a name as nvidia-smi prints it.",
        )
    return detect(Settings().data_dir), spec, *_nominal(spec)


def _nominal(spec: GpuSpec) -> tuple[float, float]:
    total = spec.vram_gib * 1024 * _REPORTED_SHARE
    return total, total * _KEPT_BY_SYSTEM


def _card_of_machine(folder: Path | None) -> tuple[MachineProfile, GpuSpec, float, float]:
    from wan22core.hardware.detect import detect
    from wan22core.hardware.gpu_specs import spec_of
    from wan22core.hardware.snapshot import read_snapshot

    machine: MachineProfile = read_snapshot(folder) if folder is not None else detect(Settings().data_dir)
    where = str(folder) if folder is not None else "this machine"
    known = [(gpu, spec) for gpu in machine.gpus if (spec := spec_of(gpu)) is not None]
    if not known:
        raise IncompatibleHardwareError(
            f"No GPU of {where} can be planned for: {machine.gpu_reason or _names(machine.gpus)}.",
            next_action='Name a card instead: wan22 plan --gpu "RTX 4080".',
        )
    gpu, spec = max(known, key=lambda each: each[0].vram_total_mib.value or 0)
    total = gpu.vram_total_mib.value
    if total is None:
        return machine, spec, *_nominal(spec)
    used = gpu.vram_used_mib.value
    return machine, spec, float(total), float(used) if used is not None else total * _KEPT_BY_SYSTEM


def _names(gpus: list[GpuProfile]) -> str:
    return ", ".join(str(gpu.name.value) for gpu in gpus)


def _document(result: Plan, settings: HostSettings) -> dict[str, Any]:
    return {
        "gpu": result.gpu.name,
        "gpu_source": result.gpu.source,
        "workload": result.workload.name,
        "total_mib": round(result.total_mib),
        "used_mib": round(result.used_mib),
        "limit_mib": round(result.limit_mib),
        "recommended": result.recommended,
        "would_be_faster": result.would_be_faster,
        "candidates": [_entry(candidate) for candidate in result.candidates],
        "settings": settings.model_dump(mode="json"),
        "recommendations": result.advice,
    }


def _entry(candidate: Candidate) -> dict[str, Any]:
    return {
        "recipe": candidate.configuration.name,
        "available": candidate.configuration.is_recipe,
        "class": candidate.configuration.recipe_class.value,
        "fits": candidate.fits,
        "spare_mib": round(candidate.spare_mib),
        "peak_mib": {stage: round(peak.process_mib) for stage, peak in candidate.peaks.items()},
        "time_s": {
            stage: [round(each, 2) for each in (time.low, time.mid, time.high)]
            for stage, time in candidate.times.items()
        },
        "targets": {name: verdict.value for name, verdict in candidate.targets.items()},
    }


def _text(result: Plan, settings: HostSettings) -> str:
    from wan22core.report.text import table

    rows = [
        [
            candidate.configuration.name + ("" if candidate.configuration.is_recipe else " *"),
            "yes"
            if candidate.fits
            else f"no, by {-candidate.spare_mib:,.0f} MiB"
            if candidate.runs
            else "no such unit",
            f"{max(peak.process_mib for peak in candidate.peaks.values()):,.0f}",
            "" if candidate.generation is None else _interval(candidate),
            candidate.targets["video_2s_generation"].value,
            candidate.targets["vram_usage"].value,
        ]
        for candidate in result.candidates
    ]
    memory = f"{result.limit_mib:,.0f} of {result.total_mib:,.0f} MiB to use"
    title = f"{result.gpu.name}, {result.workload.name}, {memory}. Predicted, not measured."
    heading = ["recipe", "fits", "peak MiB", "generation s", "time target", "VRAM target"]
    lines = [title, "", *table(heading, rows), "", f"Recommended: {result.recommended or 'none of this version'}"]
    if result.would_be_faster is not None:
        lines.append(f"Faster, once it is a recipe: {result.would_be_faster}")
    shown = ", ".join(f"{name} {value}" for name, value in settings.model_dump(exclude_none=True).items())
    return "\n".join([*lines, *result.advice, "* predicted only: this version can't run it yet", f"Settings: {shown}"])


def _interval(candidate: Candidate) -> str:
    time = candidate.generation
    return "" if time is None else f"{time.mid:,.0f} ({time.low:,.0f} to {time.high:,.0f})"
