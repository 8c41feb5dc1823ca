"""Checkpoints of ``tiny`` in int8 and fp8, and how they are asked for."""

from __future__ import annotations

from pathlib import Path

from tests.model.test_direct_loader import PICTURE
from wan22core.recipes import recipe
from wan22core.specs import BenchmarkSpec, Loader, Precision

METHODS = [Precision.INT8, Precision.FP8]


def as_asked(transformer: Precision, text: Precision = Precision.BF16, loader: Loader = Loader.DIRECT) -> BenchmarkSpec:
    changes = {"transformer_precision": transformer, "text_encoder_precision": text, "loader": loader}
    chosen = recipe("reference").model_copy(update=changes)
    return BenchmarkSpec(workload=PICTURE, recipe=chosen, device="cpu")


def link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
