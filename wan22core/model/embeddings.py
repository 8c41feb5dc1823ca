"""Embeddings of a prompt on disk, for runs that say so: read back, they are those that the text encoder would give.

One safetensors file for each combination of what decides them. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wan22core.errors import MissingOutputError
from wan22core.files import atomic_path
from wan22core.model.integrity import weights_id
from wan22core.specs import BenchmarkSpec

if TYPE_CHECKING:
    import torch

Embeddings = tuple["torch.Tensor", "torch.Tensor | None"]
"""Of the prompt, and of the negative one where guidance needs it."""

_FORMAT = 1


def embeddings_path(folder: Path, checkpoint: Path, spec: BenchmarkSpec) -> Path:
    """Where in ``folder`` those of a run are: named by its words, its weights and their precision.

    The weights' identity is that of the whole checkpoint, by samples of its files.
    """
    workload = spec.workload
    decides = {
        "format": _FORMAT,
        "prompt": workload.prompt,
        "negative_prompt": workload.negative_prompt if workload.guidance > 1 else None,
        "weights": weights_id(checkpoint),
        "precision": spec.recipe.text_encoder_precision.value,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:32]}.safetensors"


def save_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Writes them, all or nothing."""
    from safetensors.torch import save_file

    prompt, negative = embeddings
    tensors = {"prompt": prompt} if negative is None else {"prompt": prompt, "negative": negative}
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary)


def load_embeddings(path: Path, device: str) -> Embeddings:
    """Those of ``save_embeddings``, on ``device``. Raises ``MissingOutputError`` when the file holds none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device=device)
        return tensors["prompt"], tensors.get("negative")
    except (OSError, SafetensorError, KeyError) as error:
        raise MissingOutputError(
            f"{path} holds no embeddings: {error}.", next_action="Delete it: the prompt is then encoded again."
        ) from error
