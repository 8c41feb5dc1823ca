"""From what was asked for to a verified checkpoint folder: made, found, or refused with the next step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wan22core.errors import CheckpointLayoutError, CorruptWeightsError, ModelNotFoundError
from wan22core.model import checkpoint, integrity
from wan22core.model.building import is_complete
from wan22core.records import Progress, WeightsRecord
from wan22core.settings import Settings
from wan22core.specs import Precision, Weights
from wan22core.worker.client import run_job

_log = logging.getLogger(__name__)
_MAKE_DEADLINE_S = 3600.0


def prepare_weights(
    weights: Weights, settings: Settings, log_path: Path, on_progress: Callable[[Progress], None] | None = None
) -> WeightsRecord:
    """A checkpoint folder whose layout, headers and index were verified just now.

    Random weights are made in a child process (they need torch) unless they are there already.
    Raises ``ModelNotFoundError``, ``CheckpointLayoutError``, ``CorruptWeightsError`` or ``InsufficientDiskSpaceError``.
    """
    architecture = weights.random_architecture
    if architecture is None:
        return integrity.weights_record(find_checkpoint(weights.model), made=False)
    folder = checkpoint.random_checkpoint_folder(settings.weights_path, architecture, weights.seed)
    if is_complete(folder):
        try:
            return integrity.weights_record(folder, made=False)
        except (CorruptWeightsError, CheckpointLayoutError) as error:  # damaged, or made by another version
            _log.warning("%s It is made again.", error.message)
    make_random(folder, architecture.value, weights.seed, log_path, on_progress)
    return integrity.weights_record(folder, made=True)


def make_random(
    folder: Path, architecture: str, seed: int, log_path: Path, on_progress: Callable[[Progress], None] | None = None
) -> None:
    """Writes a seeded random checkpoint of ``architecture`` to ``folder`` in a child process."""
    run_job(
        "wan22core.model.checkpoint:make_random",
        {"folder": str(folder), "architecture": architecture, "seed": seed},
        deadline_s=_MAKE_DEADLINE_S,
        log_path=log_path,
        on_progress=on_progress,
    )


def prepare_precision(
    source: str,
    precision: Precision,
    text_encoder_precision: Precision | None,
    vae_precision: Precision,
    out: Path | None,
    settings: Settings,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Converts ``source`` (all that ``--model`` takes) for runs in ``precision``, in a child process.

    The text encoder's is by default the transformer's, and bf16 beside int8 and fp8: that is what recipes run.
    Returns the folder, which is ``out`` or one under wan22's data that is named by the source, and its provenance.
    Raises what ``prepare_weights`` and ``wan22core.model.prepare.prepare`` raise.
    """
    log_path = settings.logs_path / "weights.log"
    record = prepare_weights(Weights(model=source), settings, log_path, on_progress)
    beside = Precision.BF16 if precision in (Precision.INT8, Precision.FP8) else precision
    of_text = text_encoder_precision or beside
    parts = [record.architecture, record.weights_id, precision.value]
    parts += [] if of_text is beside else [f"text-{of_text.value}"]
    parts += [] if vae_precision is Precision.NONE else [f"vae-{vae_precision.value}"]
    name = "-".join(parts)
    folder = (out or settings.weights_path / name).absolute()
    precisions = {"transformer": precision, "text_encoder": of_text, "vae": vae_precision}
    provenance = run_job(
        "wan22core.model.prepare:prepare",
        {"source": str(Path(record.folder).absolute()), "folder": str(folder), "precisions": precisions},
        deadline_s=_MAKE_DEADLINE_S,
        log_path=log_path,
        on_progress=on_progress,
    )
    return folder, provenance


def find_checkpoint(model: str) -> Path:
    """The folder of a local checkpoint, or of a repository that is already in the hub's cache."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelNotFoundError(
            f"There is no checkpoint at {model}.",
            next_action="Give tiny, ti2v-5b, a checkpoint folder, or a hub id such as Wan-AI/Wan2.2-TI2V-5B-Diffusers.",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelNotFoundError(
            f"{model} is neither a folder nor a repository in the local hub cache.",
            next_action=f"Download it first: hf download {model}",
        ) from error
