"""``wan22 plan``: what a card can do, before anything is run on it."""

from __future__ import annotations

import platform
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from flows.cli.output import show
from wan22core.errors import (
    HistorySchemaError,
    IncompatibleHardwareError,
    StorageError,
    UnknownNameError,
    UserInputError,
)
from wan22core.settings import Settings
from wan22core.specs import WORKLOADS

if TYPE_CHECKING:
    from wan22core.hardware.gpu_spec import GpuSpec
    from wan22core.planning.device_calibration import Calibration
    from wan22core.planning.host_settings import HostSettings
    from wan22core.planning.planner import Candidate, Plan
    from wan22core.planning.time_model import Rates
    from wan22core.records import GpuProfile, MachineProfile, RunRecord

_REPORTED_SHARE = 0.995  # a card reports a little less than its nominal size
_KEPT_BY_SYSTEM = 0.02  # of the card, where nothing says how much is in use
_RUNS_LISTED, _RUNS_READ = 2000, 50  # the newest: what a card did long ago was another driver's
_SQLITE = "sqlite:///"


@click.command(epilog='Example: wan22 plan --gpu "RTX 4080" --workload 2s-720p')
@click.option("--gpu", "gpu_name", help="A card by its name, which need not be here.")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="The machine of this folder of dumps.")
@click.option("--workload", default="2s-720p", help=f"One of {', '.join(WORKLOADS)}.  [default: 2s-720p]")
@click.option("--vram-limit-mib", type=click.IntRange(min=1), help="Stay below this much device memory.")
@click.option("--disk-gb-s", type=click.FloatRange(min=0, min_open=True), help="Read rate of the disk, 10^9 bytes/s.")
@click.option("--copy-gb-s", type=click.FloatRange(min=0, min_open=True), help="Copies to the GPU, 10^9 bytes/s.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def plan(
    gpu_name: str | None,
    folder: Path | None,
    workload: str,
    vram_limit_mib: int | None,
    disk_gb_s: float | None,
    copy_gb_s: float | None,
    as_json: bool,
) -> None:
    """Predict peak memory and time of every recipe on a card, and whether the targets would hold.

    Predictions, not measurements: the times are intervals, and what this version can't run yet is marked. Loading
    counts with the rates that wan22 hardware --measure-rates found here; a card's own runs correct its times.
    """
    from wan22core.hardware.rates import load_rates
    from wan22core.planning.host_rates import host_rates
    from wan22core.planning.host_settings import host_settings
    from wan22core.planning.planner import plan as made

    if workload not in WORKLOADS:
        raise UnknownNameError(
            f"There is no workload {workload!r}.", next_action=f"The workloads are: {', '.join(WORKLOADS)}."
        )
    machine, spec, vram_mib, used_mib, node, remark = _card(gpu_name, folder)
    measured = load_rates(Settings().data_dir) if folder is None else None
    rates = host_rates(measured, spec, disk_gb_s=disk_gb_s, copy_gb_s=copy_gb_s)
    result = made(
        spec,
        vram_mib,
        WORKLOADS[workload],
        used_mib=used_mib,
        ceiling_mib=vram_limit_mib,
        rates=rates,
        calibration=_calibration(spec, rates, platform.node() if folder is None else None),
    )
    settings = host_settings(machine.cpu, spec, vram_mib, gpu_node=node)
    remarks = [] if remark is None else [remark]
    document = {**_document(result, settings), "remarks": remarks}
    show(document, as_json=as_json, text=lambda: "\n".join([*remarks, _text(result, settings)]))


def _calibration(spec: GpuSpec, rates: Rates, host: str | None) -> Calibration:
    """What the history's runs of this card say; a history that can't be read is a reason, and costs no plan."""
    from wan22core.planning.device_calibration import Calibration, calibrate

    try:
        runs, unread = _own_runs(spec, Settings().history_url)
    except StorageError as error:
        return Calibration.none(spec, f"the history can't be read: {error.message}")
    return calibrate(spec, rates, runs, host=host, unread=unread)


def _own_runs(spec: GpuSpec, history_url: str) -> tuple[list[RunRecord], int]:
    """The newest runs of this model of card, and how many of them are another version's and can't be understood.

    No history is made where there is none, nor sqlalchemy imported.
    """
    from wan22core.hardware.gpu_specs import is_named

    if history_url.startswith(_SQLITE) and not Path(history_url.removeprefix(_SQLITE)).exists():
        return [], 0
    from wan22core.history.store import HistoryStore

    store = HistoryStore(history_url)
    try:
        listed = store.list_runs(_RUNS_LISTED)
        own = [run.run_id for run in listed if run.device_name is not None and is_named(spec, run.device_name)]
        runs, unread = [], 0
        for run_id in own[:_RUNS_READ]:
            try:
                runs.append(store.get(run_id))
            except HistorySchemaError:
                unread += 1
        return runs, unread
    finally:
        store.close()


class _Card(NamedTuple):
    """The card that is planned for, in its machine."""

    machine: MachineProfile
    spec: GpuSpec
    vram_mib: float
    used_mib: float
    node: int | None = None
    remark: str | None = None
    """Why it is not the preferred one, where there is such a one."""


def _card(name: str | None, folder: Path | None) -> _Card:
    """A named card is thought into this machine."""
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
    return _Card(detect(Settings().data_dir), spec, *_nominal(spec))


def _nominal(spec: GpuSpec) -> tuple[float, float]:
    total = spec.vram_gib * 1024 * _REPORTED_SHARE
    return total, total * _KEPT_BY_SYSTEM


def _card_of_machine(folder: Path | None) -> _Card:
    """The preferred card of this machine, else the one with the most memory."""
    from wan22core.hardware.detect import detect
    from wan22core.hardware.gpu_specs import spec_of
    from wan22core.hardware.manual import load_entries, preferred_among
    from wan22core.hardware.snapshot import read_snapshot

    here = folder is None
    machine: MachineProfile = detect(Settings().data_dir) if folder is None else read_snapshot(folder)
    where = "this machine" if here else str(folder)
    known = [(gpu, spec) for gpu in machine.gpus if (spec := spec_of(gpu)) is not None]
    if not known:
        raise IncompatibleHardwareError(
            f"No GPU of {where} can be planned for: {machine.gpu_reason or _names(machine.gpus)}.",
            next_action='Name a card instead: wan22 plan --gpu "RTX 4080".',
        )
    asked = load_entries(Settings().data_dir).preferred_gpu if here else None
    preferred = preferred_among([gpu for gpu, _ in known], asked)
    gpu, spec = next(
        (each for each in known if each[0] is preferred),
        max(known, key=lambda each: each[0].vram_total_mib.value or 0),
    )
    remark = None
    if asked is not None and preferred is None:
        remark = (
            f"The preferred GPU {asked} is not among those of this machine that can be planned for: this is for "
            f"{spec.name}. Choose another one with wan22 hardware prefer."
        )
    total, used = gpu.vram_total_mib.value, gpu.vram_used_mib.value
    if total is None:
        return _Card(machine, spec, *_nominal(spec), gpu.numa_node.value, remark)
    used_mib = float(used) if used is not None else total * _KEPT_BY_SYSTEM
    return _Card(machine, spec, float(total), used_mib, gpu.numa_node.value, remark)


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
        "candidates": [_entry(candidate) for candidate in result.candidates],
        "settings": settings.model_dump(mode="json"),
        "recommendations": result.advice,
        "rates": {**result.rates.model_dump(mode="json"), "source": result.rates.source},
        "calibration": None if result.calibration is None else _shown(result.calibration),
    }


def _shown(calibration: Calibration) -> dict[str, Any]:
    stages = {
        name: {**found.model_dump(mode="json"), "source": found.says()} for name, found in calibration.stages.items()
    }
    return {
        "device_name": calibration.device_name,
        "stages": stages,
        "reasons": calibration.reasons,
        "unread": calibration.unread,
    }


def _entry(candidate: Candidate) -> dict[str, Any]:
    return {
        "recipe": candidate.configuration.name,
        "class": candidate.configuration.recipe_class.value,
        "fits": candidate.fits,
        "spare_mib": round(candidate.spare_mib),
        "peak_mib": {stage: round(peak.process_mib) for stage, peak in candidate.peaks.items()},
        "time_s": {
            stage: [round(each, 2) for each in (time.low, time.mid, time.high)]
            for stage, time in candidate.times.items()
        },
        "time_is_bound": candidate.is_bound,
        "targets": {name: verdict.value for name, verdict in candidate.targets.items()},
    }


def _text(result: Plan, settings: HostSettings) -> str:
    from wan22core.report.text import table

    rows = [
        [
            candidate.configuration.name,
            "yes"
            if candidate.fits
            else f"no, by {-candidate.spare_mib:,.0f} MiB"
            if candidate.runs
            else "no such unit",
            f"{max(peak.process_mib for peak in candidate.peaks.values()):,.0f}",
            _interval(candidate),
            candidate.targets["video_2s_generation"].value,
            candidate.targets["vram_usage"].value,
        ]
        for candidate in result.candidates
    ]
    memory = f"{result.limit_mib:,.0f} of {result.total_mib:,.0f} MiB to use"
    title = f"{result.gpu.name}, {result.workload.name}, {memory}. Predicted, not measured."
    heading = ["recipe", "fits", "peak MiB", "generation s", "time target", "VRAM target"]
    lines = [title, "", *table(heading, rows), "", f"Recommended: {result.recommended or 'none fits'}"]
    shown = ", ".join(
        f"{name} {value}" for name, value in settings.model_dump(exclude_none=True, exclude={"numa_cpus"}).items()
    )
    lines += [*result.advice, *_sources(result)]
    return "\n".join([*lines, f"Settings: {shown}"])


def _sources(result: Plan) -> list[str]:
    """Where the rates come from, and which stages the card's own runs correct."""
    rates = result.rates
    lines = [
        f"Rates: disk {rates.disk_bytes_s / 1e9:.1f} GB/s ({rates.disk_source}), copies to the GPU "
        f"{rates.pageable_bytes_s / 1e9:.1f} GB/s, with a cast {rates.cast_bytes_s / 1e9:.1f} ({rates.copy_source})"
    ]
    if result.calibration is not None:
        stages, reasons = result.calibration.stages, set(result.calibration.reasons.values())
        lines += [f"{name} x {found.factor:.2f}: {found.says()}" for name, found in stages.items()]
        lines += [] if stages else [f"Not calibrated by runs of this device: {'; '.join(sorted(reasons))}"]
    return lines


def _interval(candidate: Candidate) -> str:
    time = candidate.generation
    if time is None:
        return ""
    if candidate.is_bound:
        return f"at most {time.high:,.0f}"
    return f"{time.mid:,.0f} ({time.low:,.0f} to {time.high:,.0f})"
