"""The real model, which runs out of memory as a device would, by a limit that the prompt names."""

from __future__ import annotations

from typing import Any

from tests.session.limited_placements import run_out
from wan22core.model.engine import WanEngine
from wan22core.records import Tile


class LimitedTiles(WanEngine):
    """The real model; the prompt is the number of pixels beyond which a decode does not fit."""

    def decode(self, latents: Any, tile: Tile | None = None) -> Any:
        pixels = self.workload.height * self.workload.width if tile is None else tile.height * tile.width
        if pixels > int(self.workload.prompt):
            run_out()
        return super().decode(latents, tile)
