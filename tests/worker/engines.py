"""Engines with faults, for real worker children: the prompt says ``fault:stage``; without one all stages work."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from wan22core.errors import UnsupportedQuantizationError
from wan22core.records import Census, LoadedComponent, Progress, Tile
from wan22core.specs import BenchmarkSpec, Precision
from wan22core.worker.engine import OnStep, Report


def __getattr__(name: str) -> Any:
    """``HangsAtImport`` hangs as the import of a broken extension does: before there is an engine."""
    if name == "HangsAtImport":
        hang()
    raise AttributeError(name)


class FaultyEngine:
    """No model: valid outputs at once, or the fault that was asked for."""

    attention_backend = "native"

    def __init__(self, spec: BenchmarkSpec, checkpoint: Path | None, device: str) -> None:
        self.spec = spec
        self.fault, _, self.where = spec.workload.prompt.partition(":")

    def load(self, report: Report) -> list[LoadedComponent]:
        self._meet("load")
        report(Progress(stage="load", fraction=1.0, bytes_done=8, bytes_total=8))
        return [LoadedComponent(component="transformer", wall_s=0.001, bytes_read=8)]

    def quantize(self, precision: Precision, report: Report) -> None:
        if precision is Precision.FP8:
            if self.fault == "unsupported":
                raise UnsupportedQuantizationError("No fp8 here.", next_action="Use bf16.")
            self._meet("quantize")

    def encode(self) -> Any:
        self._meet("encode")
        return "embeddings"

    def encode_image(self, tile: Tile | None = None) -> Any:
        self._meet("encode_image")
        return "condition"

    def denoise(self, embeddings: Any, condition: Any, on_step: OnStep) -> Any:
        self._meet("denoise")
        import torch

        for step in range(self.spec.workload.steps):
            on_step(step, self.spec.workload.steps)
        latents = torch.linspace(-1, 1, 48 * np.prod(self.spec.workload.latent_shape).item())
        latents = latents.reshape(1, 48, *self.spec.workload.latent_shape)
        if self.where == "denoise":
            changed = {
                "nan": latents * float("nan"),
                "constant": latents * 0,
                "nothing": None,
                "frames": latents[:, :, :1],
            }
            return changed.get(self.fault, latents)
        return latents

    def decode(self, latents: Any, tile: Tile | None = None) -> Any:
        self._meet("decode")
        workload = self.spec.workload
        frames = np.random.default_rng(0).integers(
            0, 255, (workload.frames, workload.height, workload.width, 3), dtype=np.uint8
        )
        if self.where == "decode":
            changed = {"constant": frames * 0, "still": frames[:1].repeat(workload.frames, 0), "nothing": None}
            return {**changed, "frames": frames[:-4]}.get(self.fault, frames)
        return frames

    def make_room(self) -> bool:
        return False

    def take_brought(self) -> list[LoadedComponent]:
        return []

    def take_compiled(self) -> None:
        return None

    def take_cached(self) -> None:
        return None

    def census(self) -> list[Census]:
        kind = "int8" if self.spec.recipe.transformer_precision is Precision.INT8 else "bfloat16"
        return [Census(component="transformer", parameters=4, bytes_by_dtype={kind: 8}, devices=["cpu"])]

    def _meet(self, stage: str) -> None:
        if stage != self.where:
            return
        if self.fault in (
            "once",
            "hang once",
        ):  # the negative prompt names a file that remembers
            mark = Path(self.spec.workload.negative_prompt)
            if mark.exists():
                return
            mark.touch()
            _FAULTS["kill" if self.fault == "once" else "hang"]()
        _FAULTS.get(self.fault, lambda: None)()


def hang() -> None:
    ctypes.PyDLL(None).sleep(600)  # a C call that keeps the interpreter's lock


def _fail() -> None:
    raise RuntimeError("this stage is broken\nand has a second line")


def _out_of_memory() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def _leave_grandchild() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"grandchild {child.pid}", flush=True)
    hang()


_FAULTS = {
    "hang": hang,
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "fail": _fail,
    "oom": _out_of_memory,
    "grandchild": _leave_grandchild,
}
