"""``wan22 hardware``: this machine, or another one by its dumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli.output import show
from wan22core.errors import UserInputError
from wan22core.records import HardwareProfile, MachineProfile, Reading, TorchFacts
from wan22core.settings import Settings

_TORCH_S = 120.0


@click.group(
    invoke_without_command=True,
    epilog="Examples: wan22 hardware --json; wan22 hardware --snapshot my-machine; wan22 hardware --from my-machine",
)
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Read another machine's dumps in this folder.")
@click.option("--snapshot", type=click.Path(path_type=Path), help="Write this machine's dumps into this folder.")
@click.option("--measure-rates", is_flag=True, help="Measure the disk of the weights and the copies to the GPU.")
@click.option("--no-torch", is_flag=True, help="Don't ask torch, which takes some seconds to import.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def hardware(
    context: click.Context,
    folder: Path | None,
    snapshot: Path | None,
    measure_rates: bool,
    no_torch: bool,
    as_json: bool,
) -> None:
    """What a machine has; each figure with its source, or with the reason why it is unknown."""
    if context.invoked_subcommand is not None:
        return
    if sum((folder is not None, snapshot is not None, measure_rates)) > 1:
        raise UserInputError(
            "--from reads a folder, --snapshot writes one, and --measure-rates measures this machine.",
            next_action="Give one of them.",
        )
    if measure_rates:
        _measure(no_torch=no_torch, as_json=as_json)
        return
    if snapshot is not None:
        _capture(snapshot, as_json=as_json)
        return
    profile = _replayed(folder) if folder is not None else _detected(no_torch=no_torch)
    preferred = _preference() if folder is None else []
    show(profile.model_dump(mode="json"), as_json=as_json, text=lambda: "\n".join([*_lines(profile), *preferred]))


@hardware.command("prefer", epilog='Examples: wan22 hardware prefer "RTX 4080"; wan22 hardware prefer none')
@click.argument("gpu")
def prefer(gpu: str) -> None:
    """Choose the GPU (its name, index or UUID) that the device auto means; none forgets it."""
    from wan22core.hardware import manual
    from wan22core.hardware.detect import detect

    data_dir = Settings().data_dir
    if gpu == "none":
        manual.forget_preference(data_dir)
        click.echo("No GPU is preferred: auto takes the first one that torch sees.")
        return
    gpus = detect(data_dir).gpus
    kept = manual.prefer(data_dir, gpu, gpus)
    chosen = manual.preferred_among(gpus, kept)
    named = f"{chosen.name.value} ({kept})" if chosen is not None and chosen.name.value != kept else kept
    unchecked = "" if gpus else "; no GPU is seen here now, so that was not checked"
    click.echo(f"auto takes {named}{unchecked}.")


@hardware.command("set-vram", epilog='Example: wan22 hardware set-vram "NVIDIA GeForce RTX 4080" 16376')
@click.argument("gpu")
@click.argument("mib", type=click.IntRange(min=256, max=4_194_304))
def set_vram(gpu: str, mib: int) -> None:
    """Enter the memory of a GPU (its name or index) that no source can tell."""
    from wan22core.hardware import manual

    manual.set_vram(Settings().data_dir, gpu, mib)
    click.echo(f"{gpu}: {mib:,} MiB, where no source says otherwise.")


def _replayed(folder: Path) -> MachineProfile:
    from wan22core.hardware.snapshot import read_snapshot

    return read_snapshot(folder)


def _detected(*, no_torch: bool) -> HardwareProfile:
    from wan22core.hardware.detect import detect

    return detect(Settings().data_dir, None if no_torch else _torch_facts())


def _preference() -> list[str]:
    from wan22core.hardware.manual import load_entries

    preferred = load_entries(Settings().data_dir).preferred_gpu
    return [] if preferred is None else [f"Preferred GPU: {preferred}"]


def _measure(*, no_torch: bool, as_json: bool) -> None:
    from wan22core.session.rates import measure_rates

    facts = None if no_torch else _torch_facts()
    rates = measure_rates(Settings(), facts)
    disk, copies, asked_at = rates.disk, rates.copies, rates.copies_measured_at
    read = f"{disk.read_bytes / 2**20:,.0f} MiB of {', '.join(disk.files)}"
    lines = [
        f"Disk of {disk.path}, {rates.disk_measured_at.date()}: {read}",
        *_rates(disk),
        f"Copies to {copies.device_name or 'a GPU'}, {asked_at.date() if asked_at else 'never measured'}",
        *_rates(copies),
        "Kept for wan22 plan.",
    ]
    show(rates.model_dump(mode="json"), as_json=as_json, text=lambda: "\n".join(lines))


def _rates(part: Any) -> list[str]:
    """The rates of a record in GB/s, 10^9 bytes."""
    named = {name.removesuffix("_bytes_s"): getattr(part, name) for name in type(part).model_fields}
    return [
        f"  {name:<22}" + (_shown(said) if said.value is None else f"{said.value / 1e9:.2f} GB/s  [{said.source}]")
        for name, said in named.items()
        if isinstance(said, Reading)
    ]


def _capture(folder: Path, *, as_json: bool) -> None:
    from wan22core.hardware.capture import capture

    written, missing = capture(folder)
    document = {"folder": str(folder), "written": written, "missing": missing}
    lines = [f"Written into {folder}: {', '.join(written)}", *(f"Not there: {line}" for line in missing)]
    show(document, as_json=as_json, text=lambda: "\n".join(lines))


def _torch_facts() -> TorchFacts:
    """torch is asked in a child: this process never imports it."""
    from wan22core.worker.client import run_job

    answer = run_job(
        "wan22core.worker.host:torch_facts_job", {}, deadline_s=_TORCH_S, log_path=Settings().logs_path / "torch.log"
    )
    return TorchFacts.model_validate(answer)


def _lines(profile: MachineProfile) -> list[str]:
    lines = ["CPU", *_readings(profile.cpu), "Memory", *_readings(profile.memory)]
    for gpu in profile.gpus:
        lines += [f"GPU {gpu.index}" + (" (lost)" if gpu.state == "lost" else ""), *_readings(gpu)]
    lines += [f"  MIG instance of GPU {each.gpu}: {_shown(each.memory_mib)}" for each in profile.mig_instances]
    if profile.gpu_reason is not None:
        lines += ["GPU", f"  none: {profile.gpu_reason}"]
    if isinstance(profile, HardwareProfile):
        software = profile.software
        lines += [f"Disk of {profile.disk.path}", *_readings(profile.disk)]
        lines += ["Software", f"  {software.operating_system} {software.kernel}, Python {software.python}"]
        lines += [f"  {name:<22}{_shown(reading)}" for name, reading in software.packages.items()]
    return lines + [f"Note: {note}" for note in profile.notes]


def _readings(part: Any) -> list[str]:
    values = {name: getattr(part, name) for name in type(part).model_fields}
    return [f"  {name:<22}{_shown(value)}" for name, value in values.items() if isinstance(value, Reading)]


def _shown(reading: Reading[Any]) -> str:
    return f"unknown ({reading.reason})" if reading.value is None else f"{reading.value}  [{reading.source}]"
