"""A recipe's step cache at work: for one video at a time, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig

from wan22core.records import CachedForwards
from wan22core.specs import CacheMethod, StepCache, Workload


class ForwardCount:
    """Forwards of the transformer, and those of its last block, which are the computed ones."""

    def __init__(self) -> None:
        self._all = self._computed = 0

    @property
    def found(self) -> CachedForwards:
        """What was counted until now."""
        return CachedForwards(forwards=self._all, cached=self._all - self._computed)

    def one(self, *_: Any) -> None:
        """A forward began."""
        self._all += 1

    def computed(self, forward: Any) -> Any:
        """``forward``, counted."""

        def counted(*inputs: Any, **named: Any) -> Any:
            self._computed += 1
            return forward(*inputs, **named)

        return counted


@contextmanager
def step_cache(transformer: Any, cache: StepCache, workload: Workload) -> Iterator[ForwardCount]:
    """Within the block the ``WanTransformer3DModel`` leaves forwards out.

    The cache is made for each video: diffusers' own resets itself only after one that went to its end, and what it
    holds is gone before the decode. Its hooks go around the blocks' forwards, compiled ones too.
    """
    count = ForwardCount()
    last = transformer.blocks[-1]
    forward = last.forward
    handle = transformer.register_forward_pre_hook(count.one)
    last.forward = count.computed(forward)
    transformer.enable_cache(_config(cache, workload))
    try:
        yield count
    finally:
        transformer.disable_cache()
        last.forward = forward
        handle.remove()


def _config(cache: StepCache, workload: Workload) -> Any:
    if cache.method is CacheMethod.FIRST_BLOCK:
        return FirstBlockCacheConfig(threshold=cache.threshold)
    return MagCacheConfig(
        threshold=cache.threshold,
        max_skip_steps=cache.most_in_a_row,
        retention_ratio=cache.first_share,
        num_inference_steps=workload.steps,
        mag_ratios=torch.tensor(cache.magnitudes(workload), dtype=torch.float64),
    )
