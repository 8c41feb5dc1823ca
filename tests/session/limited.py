"""Engines that run out of memory as a device would, by a limit that the prompt names."""

from __future__ import annotations

from typing import Any

import torch

from tests.worker.engines import FaultyEngine
from wan22core.model.engine import WanEngine
from wan22core.records import Tile
from wan22core.worker.engine import OnStep


def _run_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class LimitedTiles(WanEngine):
    """The real model; the prompt is the number of pixels beyond which a decode does not fit."""

    def decode(self, latents: Any, tile: Tile | None = None) -> Any:
        pixels = self.workload.height * self.workload.width if tile is None else tile.height * tile.width
        if pixels > int(self.workload.prompt):
            _run_out()
        return super().decode(latents, tile)


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
            _run_out()
