"""The components of a checkpoint: which are in memory, and which are on the device while a stage runs.

``resident``: all on the device from the load on. ``encode_then_free``: the load reads transformer and VAE into main
memory; a stage brings what it needs to the device, the text encoder from its files, and it is gone once the prompt is
encoded. ``block_stream``: the same, and text encoder and transformer come block by block.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from wan22core.model import loader
from wan22core.model.attention import set_attention
from wan22core.model.block_stream import BlockStream, HostCopy
from wan22core.model.census import counted, tensors_of
from wan22core.model.compiled_blocks import CompiledBlocks
from wan22core.model.device import synchronize
from wan22core.model.distinct_timesteps import embed_distinct_timesteps
from wan22core.model.quantize import Report, put_in_force
from wan22core.model.staging import OnBytes
from wan22core.model.stored_precision import stored_precision
from wan22core.records import Census, Compilation, LoadedComponent, Progress
from wan22core.specs import BenchmarkSpec, Placement, Precision

_HOST = torch.device("cpu")
_TEXT_ENCODER = "text_encoder"
_log = logging.getLogger(__name__)


class Components:
    """Every component of one checkpoint, where the recipe's placement wants it."""

    def __init__(self, checkpoint: Path, spec: BenchmarkSpec, device: torch.device) -> None:
        self.modules: dict[str, Any] = {}
        """Those that are in memory."""
        self._checkpoint = checkpoint
        self._spec = spec
        self._device = device
        self._placement = spec.recipe.placement
        self._file_bytes = loader.file_bytes(checkpoint)
        self._prepared = {name for name in loader.MODULES if stored_precision(checkpoint / name) is not None}
        self._precision: Precision | None = None
        self._visitors: tuple[str, ...] = ()
        self._copies: dict[str, HostCopy] = {}
        self._streams: dict[str, BlockStream] = {}
        self._brought: list[LoadedComponent] = []
        self._census: dict[str, Census] = {}
        self._compiled: CompiledBlocks | None = None

    def load(self, report: Report) -> list[LoadedComponent]:
        """Reads what is in memory from the start. Raises what ``load_component`` raises."""
        resident = self._placement is Placement.RESIDENT
        self._visitors = self._read_when_needed()
        names = [name for name in loader.COMPONENTS if name not in self._visitors]
        total, done = sum(self._file_bytes.get(name, 0) for name in names), 0

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            report(Progress(stage="load", fraction=done / total, bytes_done=done, bytes_total=total))

        for name in names:
            after = done + self._file_bytes.get(name, 0)
            began = time.perf_counter()
            self._read(name, self._device if resident else _HOST, on_bytes)
            self._note(name, began, bytes_read=self._file_bytes.get(name, 0))
            on_bytes(after - done)  # headers and padding
        return self.take_brought()

    def quantize(self, precision: Precision, report: Report) -> None:
        """Puts ``precision`` in force, where the transformer is. Raises ``UnsupportedQuantizationError``."""
        self._precision = precision
        if "transformer" in self.modules:
            self._put_in_force(report)
        else:
            with self.on_device("transformer"):
                report(Progress(stage="quantize", fraction=1.0))

    @contextmanager
    def on_device(self, name: str) -> Iterator[None]:
        """``name`` is ready to compute within the block, and then where its placement has it between stages."""
        if self._placement is Placement.RESIDENT:
            yield
            return
        try:
            self._bring(name)
            yield
        finally:
            if name != "transformer":  # it may stay for the next video: ``make_room`` decides
                self._put_away(name)

    def make_room(self) -> bool:
        """Takes the transformer off the device; whether it was there."""
        return self._placement is not Placement.RESIDENT and self._put_away("transformer")

    def stays(self, name: str) -> bool:
        """Whether a component keeps its place in memory between the stages that need it."""
        return name not in self._visitors

    def take_brought(self) -> list[LoadedComponent]:
        """What was read or brought to the device since this was last asked, in that order."""
        taken, self._brought = self._brought, []
        return taken

    def take_compiled(self) -> Compilation | None:
        """What was compiled since this was last asked."""
        return self._compiled.take_compiled() if self._compiled is not None else None

    def census(self) -> list[Census]:
        """Of every module that is in memory, and of those that were, as they were last seen."""
        for name in loader.MODULES:
            if name in self.modules:
                self._census[name] = self._counted(name)
        return [self._census[name] for name in loader.MODULES if name in self._census]

    def _read_when_needed(self) -> tuple[str, ...]:
        """What has no place in memory between the stages; the transformer where less than its files' bytes is left."""
        if self._placement is Placement.RESIDENT:
            return ()
        left_bytes, needed_bytes = psutil.virtual_memory().available, self._file_bytes["transformer"]
        if self._placement is Placement.BLOCK_STREAM or left_bytes >= needed_bytes:
            return (_TEXT_ENCODER,)
        _log.info("%.1f GiB of main memory are left: each video reads the transformer anew.", left_bytes / 2**30)
        return (_TEXT_ENCODER, "transformer")

    def _bring(self, name: str) -> None:
        if name in self._copies:
            return
        if name == _TEXT_ENCODER:
            self.make_room()
        streams = self._placement is Placement.BLOCK_STREAM and name != "vae"
        began, bytes_read = time.perf_counter(), 0
        if name not in self.modules:
            self._read(name, _HOST if streams else self._device, _unheard)
            bytes_read = self._file_bytes[name]
        module = self.modules[name]
        blocks = _blocks(module) if streams else []
        streamed = {id(tensor) for block in blocks for tensor in tensors_of(block)}
        self._copies[name] = HostCopy(tensor for tensor in tensors_of(module) if id(tensor) not in streamed)
        self._copies[name].bring(self._device)
        if streams and name not in self._streams:
            self._streams[name] = BlockStream(blocks, self._device, pinned=name != _TEXT_ENCODER)
        self._note(name, began, bytes_read=bytes_read)
        self._census[name] = self._counted(name)

    def _put_away(self, name: str) -> bool:
        """Off the device, and out of memory where it does not stay; whether it was on the device."""
        if name not in self._copies:
            return False
        if name in self._streams:
            self._streams[name].release()
        self._copies.pop(name).leave()
        if not self.stays(name):
            self._streams.pop(name, None)
            del self.modules[name]
        gc.collect()  # hooks and modules refer to each other
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def _read(self, name: str, device: torch.device, on_bytes: OnBytes) -> None:
        """From the files, ready to compute as the recipe says."""
        module = loader.load_component(name, self._checkpoint, self._spec, device, on_bytes)
        self.modules[name] = module
        if name == "transformer":
            self._set_up(module)
            if self._precision is not None:
                self._put_in_force(_unseen)

    def _set_up(self, transformer: Any) -> None:
        """How it computes, beside the precision."""
        recipe = self._spec.recipe
        set_attention(transformer, recipe.attention_backend, self._device, self._spec.workload.tokens)
        if recipe.distinct_timesteps:
            embed_distinct_timesteps(transformer)
        if recipe.compiled:
            self._compiled = CompiledBlocks(transformer.blocks, self._device)

    def _put_in_force(self, report: Report) -> None:
        assert self._precision is not None
        accumulates = self._spec.recipe.fp16_accumulation
        put_in_force(self.modules["transformer"], self._precision, self._device, report, fp16_accumulation=accumulates)

    def _counted(self, name: str) -> Census:
        return counted(name, self.modules[name]).model_copy(update={"prepared": name in self._prepared})

    def _note(self, name: str, began: float, *, bytes_read: int) -> None:
        synchronize(self._device)
        wall_s = time.perf_counter() - began
        self._brought.append(LoadedComponent(component=name, wall_s=wall_s, bytes_read=bytes_read))


def _unheard(_count: int) -> None:
    """A stage that reads a component has progress of its own."""


def _unseen(_progress: Progress) -> None:
    """The same, of quantizing."""


def _blocks(module: Any) -> list[torch.nn.Module]:
    """Of the transformer, or of the text encoder."""
    return list(module.blocks if hasattr(module, "blocks") else module.encoder.block)
