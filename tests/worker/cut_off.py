"""The real engine, which hangs in its first decode of all: whoever started it can be killed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.worker.engines import hang
from wan22core.model.engine import WanEngine
from wan22core.records import Tile


class CutOffEngine(WanEngine):
    """The negative prompt names the file that tells the first decode from later ones."""

    def decode(self, latents: Any, tile: Tile | None = None) -> Any:
        mark = Path(self.spec.workload.negative_prompt)
        if not mark.exists():
            mark.touch()
            hang()
        return super().decode(latents, tile)
