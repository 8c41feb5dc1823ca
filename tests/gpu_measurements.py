"""Measurements of ``benchmarks/gpu.py`` made by hand: of the 5B model on a GPU that does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.against_stock.records import Asked, Ceiling, CeilingName, Ceilings, Line, Measured
from tests.builders import make_labels, make_repeats

ASKED = Asked(model="ti2v-5b", workload="2s-720p", steps=50, repeats=1, device="cuda:0", vram_limit_mib=None)
C12 = 12_288


def measured(
    name: str,
    round_: int,
    start_to_video_s: float = 20,
    *,
    torch: str = "2.13",
    error: str | None = None,
    labels: Mapping[str, Any] | None = None,
    decode_s: float = 3.0,
    **row: Any,
) -> Measured:
    changes = {"start_to_video_s": start_to_video_s, "step_median_s": 0.5, **row}
    return Measured(
        recipe=name, round=round_, wall_s=start_to_video_s + 5, run_dir="/runs/x",
        labels=make_labels(cuda=True, **(labels or {})), environment={"torch": torch, "driver": None},
        rows=[make_repeats(cuda=True)[1].model_copy(update=changes)],
        stages_s={"load": 2.0, "denoise": 25.0, "decode": decode_s}, load_bytes=10**10, out_of_order=[], error=error,
    )  # fmt: skip


def ceilings(*, scaled_down: bool = False, gemm: float = 768e12, direct_4: float = 2e9) -> Ceilings:
    """The rates of facts: the speed of light of a bf16 step is 0.424 s at them."""
    rates = {
        CeilingName.GEMM: gemm,
        CeilingName.ATTENTION_FLASH: 362e12,
        CeilingName.ATTENTION_CUDNN: 615e12,
        CeilingName.DISK_DIRECT_1: 1e9,
        CeilingName.DISK_DIRECT_4: direct_4,
    }
    found = [Ceiling(name=name, what="synthetic", samples=[rate] * 5) for name, rate in rates.items()]
    found.append(Ceiling(name=CeilingName.PINNED_COPY, what="synthetic", reason="nobody asked"))
    return Ceilings(device="cuda:0", device_name="Synthetic GPU", torch="2.13", scaled_down=scaled_down, found=found)


def write(path: Path, asked: Asked, done: list[Measured], found: Ceilings | None = None) -> Path:
    lines = [Line(asked=asked), *([Line(ceilings=found)] if found else []), *(Line(measured=each) for each in done)]
    path.write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    return path
