"""``wan22 weights``: checkpoints on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from flows.cli.output import show
from flows.cli.progress import progress_line
from wan22core.errors import UnknownNameError
from wan22core.model.building import is_complete
from wan22core.model.checkpoint import random_checkpoint_folder
from wan22core.model.quantize_preference import QuantizationPreference, QuantizationPreferences
from wan22core.settings import Settings
from wan22core.specs import Architecture, Precision


@click.group()
def weights() -> None:
    """Make, prepare, check, list and remove checkpoints."""


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


@weights.command("prepare", epilog="Example: wan22 weights prepare Wan-AI/Wan2.2-TI2V-5B-Diffusers --precision int8")
@click.argument("source")
@click.option(
    "--precision", type=click.Choice(["bf16", "fp16", "int8", "fp8"]), default="bf16", show_default=True,
    help="Of the transformer, and in bf16 and fp16 of the text encoder; what a load in it keeps in fp32 stays so.",
)  # fmt: skip
@click.option(
    "--text-encoder", "text_encoder_precision", type=click.Choice(["bf16", "fp16", "int8", "fp8"]),
    help="Of the text encoder, where it is not the transformer's: bf16 beside int8 and fp8.",
)  # fmt: skip
@click.option(
    "--vae-precision", type=click.Choice(["none", "bf16", "fp16"]), default="none", show_default=True,
    help="Of the VAE; none keeps it as it is, for recipes that run it in fp32.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make; else one under wan22's data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def prepare(
    source: str,
    precision: str,
    text_encoder_precision: str | None,
    vae_precision: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Convert SOURCE (tiny, ti2v-5b, a folder or a hub id) once, so that loads read only the bytes they need.

    The source is left as it is. What need not change is a hard link to it. Run the result with --model FOLDER, and
    what is in int8 or fp8 by a recipe that asks for it with the direct loader.
    """
    from wan22core.session.weights import prepare_precision

    of_text = None if text_encoder_precision is None else Precision(text_encoder_precision)
    precisions = Precision(precision), of_text, Precision(vae_precision)
    with progress_line() as on_progress:
        folder, provenance = prepare_precision(source, *precisions, out, Settings(), on_progress)
    show({"folder": str(folder), **provenance}, as_json=as_json, text=lambda: str(folder))


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


@weights.command("prefer", epilog="Examples: wan22 weights prefer off; wan22 weights prefer int8 --model ti2v-5b")
@click.argument("method", type=click.Choice([*(each.value for each in QuantizationPreference), "none"]))
@click.option("--model", help="tiny, ti2v-5b, a folder or a hub id; else every model without a preference of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def prefer(method: str, model: str | None, as_json: bool) -> None:
    """Choose what recipes that quantize try first; off never quantizes, none forgets the preference.

    It holds for every later run until it is changed here. Recipes that do not quantize run as they are.
    """
    from wan22core.model import quantize_preference

    chosen = None if method == "none" else QuantizationPreference(method)
    kept = quantize_preference.prefer(Settings().data_dir, chosen, model)
    show(kept.model_dump(mode="json"), as_json=as_json, text=lambda: _preferences(kept))


def _preferences(kept: QuantizationPreferences) -> str:
    of_all = "as the recipe says" if kept.for_all is None else kept.for_all.value
    own = [f"{model}: {each.value}" for model, each in sorted(kept.by_model.items())]
    return "\n".join([*own, f"every {'other ' if own else ''}model: {of_all}"])


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
