"""No model, which runs out of memory as a device would. Without diffusers it starts in half the time."""

from __future__ import annotations

from typing import Any

import torch

from tests.worker.engines import FaultyEngine
from wan22core.records import Tile
from wan22core.worker.engine import OnStep


def run_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class LimitedPlacements(FaultyEngine):
    """No model; the prompt names a stage and the placements that it fits in: ``denoise:block_stream``."""

    def quantize(self, *_: Any) -> None:
        self._fit("quantize")

    def denoise(self, embeddings: Any, condition: Any, on_step: OnStep) -> Any:
        self._fit("denoise")
        return super().denoise(embeddings, condition, on_step)

    def decode(self, latents: Any, tile: Tile | None = None) -> Any:
        self._fit("decode")
        return super().decode(latents, tile)

    def _fit(self, stage: str) -> None:
        if self.fault == stage and self.spec.recipe.placement.value not in self.where.split(","):
            run_out()
