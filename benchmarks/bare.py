"""The stages of one generation without wan22's worker, sampler and flow: what ``overhead.py`` compares with.

Usage: python benchmarks/bare.py SPEC.json CHECKPOINT
Makes one video for each line of input, and prints its seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from wan22core.model.engine import WanEngine
from wan22core.model.outputs import save_latents
from wan22core.model.video import write_video
from wan22core.specs import BenchmarkSpec


def main() -> None:
    spec = BenchmarkSpec.model_validate_json(Path(sys.argv[1]).read_bytes())
    engine = WanEngine(spec, Path(sys.argv[2]), "cpu" if spec.device == "auto" else spec.device)
    engine.load(lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        for _ in sys.stdin:
            print(_generate(engine, spec, Path(folder)), flush=True)


def _generate(engine: WanEngine, spec: BenchmarkSpec, folder: Path) -> float:
    began = time.perf_counter()
    latents = engine.denoise(engine.encode(), None, lambda _index, _steps: None)
    save_latents(folder / "latents.safetensors", latents, {})
    write_video(folder / "video.mp4", engine.decode(latents), spec.workload.fps)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
