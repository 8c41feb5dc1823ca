"""``wan22 hardware``: this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from flows.cli.output import show
from wan22core.records import HardwareProfile, Reading, TorchFacts
from wan22core.settings import Settings

_TORCH_S = 120.0


@click.command(epilog="Example: wan22 hardware --json")
@click.option("--no-torch", is_flag=True, help="Don't ask torch, which takes some seconds to import.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def hardware(no_torch: bool, as_json: bool) -> None:
    """What this machine has; each figure with its source, or with the reason why it is unknown."""
    from wan22core.hardware.detect import detect

    profile = detect(Settings().data_dir, None if no_torch else _torch_facts())
    show(profile.model_dump(mode="json"), as_json=as_json, text=lambda: "\n".join(_lines(profile)))


def _torch_facts() -> TorchFacts:
    """torch is asked in a child: this process never imports it."""
    from wan22core.worker.client import run_job

    with tempfile.TemporaryDirectory() as folder:
        answer = run_job(
            "wan22core.worker.host:torch_facts_job", {}, deadline_s=_TORCH_S, log_path=Path(folder) / "worker.log"
        )
    return TorchFacts.model_validate(answer)


def _lines(profile: HardwareProfile) -> list[str]:
    lines = ["CPU", *_readings(profile.cpu), "Memory", *_readings(profile.memory), f"Disk of {profile.disk.path}"]
    lines += _readings(profile.disk)
    for gpu in profile.gpus:
        lines += [f"GPU {gpu.index}", *_readings(gpu)]
    if profile.gpu_reason is not None:
        lines += ["GPU", f"  none: {profile.gpu_reason}"]
    software = profile.software
    lines += ["Software", f"  {software.operating_system} {software.kernel}, Python {software.python}"]
    return lines + [f"  {name:<22}{_shown(reading)}" for name, reading in software.packages.items()]


def _readings(part: Any) -> list[str]:
    values = {name: getattr(part, name) for name in type(part).model_fields}
    return [f"  {name:<22}{_shown(value)}" for name, value in values.items() if isinstance(value, Reading)]


def _shown(reading: Reading[Any]) -> str:
    return f"unknown ({reading.reason})" if reading.value is None else f"{reading.value}  [{reading.source}]"
