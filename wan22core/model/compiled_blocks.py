"""The transformer's blocks, compiled: one of them, once, and all the others run its code.

Whole-model compilation takes minutes and gains nothing over this. The code is kept on disk (``Settings``), so that a
later process only loads it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from wan22core.model.device import synchronize
from wan22core.records import Compilation

_log = logging.getLogger(__name__)


class CompiledBlocks:
    """Compiles at the first call of the first of ``blocks``; where that fails all of them run as they are.

    Only ``forward`` is compiled: hooks on the blocks (weights that come and go) run around it as before.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._eager = [block.forward for block in blocks]
        self._compiled = [torch.compile(forward, fullgraph=True, dynamic=False) for forward in self._eager]
        self._done: Compilation | None = None
        self._forwards: list[Any] = [self._first_call, *self._compiled[1:]]
        for index, block in enumerate(blocks):
            block.forward = partial(self._forward, index)  # stays: hooks of diffusers go around it

    def take_compiled(self) -> Compilation | None:
        """What the first call found, once."""
        done, self._done = self._done, None
        return done

    def _first_call(self, *inputs: Any) -> Any:
        """Compiles; a second call, with the code at hand, tells how much of the first was compiling."""
        missed = _missed()
        try:
            first_s, result = self._timed(self._compiled[0], inputs)
        except TorchDynamoException as error:
            if isinstance(error.__cause__, torch.OutOfMemoryError):
                raise error.__cause__ from None
            reason = " ".join(str(error).split("\n")[:2])
            _log.warning("The blocks could not be compiled and run as they are: %s", reason)
            self._done = Compilation(seconds=None, cache="none", reason=reason)
            self._forwards = self._eager
            return self._eager[0](*inputs)
        again_s, result = self._timed(self._compiled[0], inputs)
        found = _missed() == missed
        self._done = Compilation(seconds=max(0.0, first_s - again_s), cache="warm" if found else "cold")
        self._forwards = self._compiled
        return result

    def _timed(self, forward: Any, inputs: Sequence[Any]) -> tuple[float, Any]:
        synchronize(self._device)
        began = time.perf_counter()
        result = forward(*inputs)
        synchronize(self._device)
        return time.perf_counter() - began, result

    def _forward(self, index: int, *inputs: Any) -> Any:
        return self._forwards[index](*inputs)


def _missed() -> int:
    """How often the cache on disk had no code for a graph of this process."""
    return counters["inductor"]["fxgraph_cache_miss"] + counters["aot_autograd"]["autograd_cache_miss"]
