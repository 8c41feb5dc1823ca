"""``wan22 weights``: checkpoints on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from flows.cli.output import show
from flows.cli.progress import progress_line
from wan22core.errors import UnknownNameError
from wan22core.model.checkpoint import is_complete, random_checkpoint_folder
from wan22core.settings import Settings
from wan22core.specs import Architecture


@click.group()
def weights() -> None:
    """Make, check, list and remove checkpoints."""


@weights.command("make", epilog="Example: wan22 weights make ti2v-5b")
@click.argument("architecture", type=click.Choice([each.value for each in Architecture]))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the values.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make; else one under wan22's data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def make(architecture: str, seed: int, out: Path | None, as_json: bool) -> None:
    """Write a checkpoint of the true architecture with seeded random values."""
    from wan22core.session.weights import make_random

    settings = Settings()
    folder = (out or random_checkpoint_folder(settings.weights_path, Architecture(architecture), seed)).absolute()
    with progress_line() as on_progress:
        make_random(folder, architecture, seed, settings.logs_path / "weights.log", on_progress)
    show({"folder": str(folder), "architecture": architecture, "seed": seed}, as_json=as_json, text=lambda: str(folder))


@weights.command("check", epilog="Example: wan22 weights check ./Wan2.2-TI2V-5B-Diffusers --hash")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--hash", "hash_files", is_flag=True, help="Read every byte and compare the recorded sha256.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def check(context: click.Context, folder: Path, hash_files: bool, as_json: bool) -> None:
    """Is this checkpoint whole? Layout, headers, index against shards. Exits 4 when it is not."""
    from wan22core.model.integrity import check_checkpoint

    found = check_checkpoint(folder, hash_files=hash_files)
    lines = [f"{each.verdict:<8} {each.path}{f': {each.reason}' if each.reason else ''}" for each in found]
    show({"files": [each.model_dump() for each in found]}, as_json=as_json, text=lambda: "\n".join(lines))
    context.exit(4 if any(each.verdict in ("missing", "corrupt") for each in found) else 0)


@weights.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_weights(as_json: bool) -> None:
    """The checkpoints that wan22 made."""
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in sorted(Settings().weights_path.glob("*"))
        if is_complete(folder)
    }
    lines = [f"{size / 2**20:>10,.0f} MiB  {name}" for name, size in sizes.items()]
    found = [{"name": name, "bytes": size} for name, size in sizes.items()]
    show({"checkpoints": found}, as_json=as_json, text=lambda: "\n".join(lines) or "None yet: wan22 weights make tiny")


@weights.command("rm", epilog="Example: wan22 weights rm tiny-random-seed0 --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
def remove(name: str, yes: bool) -> None:
    """Remove a checkpoint that wan22 made, by its name in the list."""
    folder = Settings().weights_path / name
    if Path(name).name != name or not is_complete(folder):
        raise UnknownNameError(f"wan22 made no checkpoint {name!r}.", next_action="See wan22 weights list.")
    if not yes:
        click.confirm(f"Remove {folder}?", abort=True)
    shutil.rmtree(folder)
    click.echo(f"Removed {folder}.")
