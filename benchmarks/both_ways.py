"""The engine of ``overhead.py``: the worker calls it stage by stage, and a job of the same process all at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wan22core.model.engine import WanEngine
from wan22core.model.outputs import save_latents
from wan22core.model.video import write_video
from wan22core.records import Progress
from wan22core.specs import BenchmarkSpec

_live: list[BothWays] = []


class BothWays(WanEngine):
    """The real model; the last one that was built can be found."""

    def __init__(self, spec: BenchmarkSpec, checkpoint: Path | None, device: str) -> None:
        super().__init__(spec, checkpoint, device)
        _live[:] = [self]


def generate_job(report: Callable[[Progress], None]) -> dict[str, Any]:  # noqa: ARG001 - a job's signature
    """The stages of one generation as a bare script calls them, and their seconds."""
    engine = _live[0]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        latents = engine.denoise(engine.encode(), None, lambda _index, _steps: None)
        save_latents(Path(folder) / "latents.safetensors", latents, {})
        write_video(Path(folder) / "video.mp4", engine.decode(latents), engine.workload.fps)
        return {"seconds": time.perf_counter() - began}
