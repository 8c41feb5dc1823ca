"""Blocks that live in main memory and come to the device one ahead of their turn.

Two slots on the device take turns: while a block computes in one, the next is copied into the other on a stream of its
own. Every block is one run of bytes, so that it travels as one copy. On a CPU device the same hooks make plain copies.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

_ALIGNED_TO_BYTES = 256
"""Where a tensor may begin in a run of bytes: CUDA's own allocator gives no less."""


class HostCopy:
    """Tensors whose values stay in main memory while they are used on the device: weights never travel back."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._homes = [(tensor, tensor.data) for tensor in tensors]

    def bring(self, device: torch.device) -> None:
        """Every tensor to ``device``."""
        for tensor, home in self._homes:
            tensor.data = home.to(device)

    def leave(self) -> None:
        """Every tensor back to main memory; what was on the device is freed."""
        for tensor, home in self._homes:
            tensor.data = home


class BlockStream:
    """Hooks on ``blocks`` that bring each one's weights before it computes.

    Any order of calls is right; the order of ``blocks``, over and over, is the one that is fetched ahead.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, *, pinned: bool) -> None:
        """``pinned`` page-locks the weights for as long as this lives: worth its time where they travel many times."""
        self._device = device
        self._on_cuda = device.type == "cuda"
        self._packed = [_Packed(block) for block in blocks]
        if pinned and self._on_cuda:
            for packed in self._packed:
                _page_lock(packed.host)
            weakref.finalize(self, _unlock, [packed.host for packed in self._packed])
        self._copying: Any = torch.cuda.Stream(device) if self._on_cuda else None
        self._slots: list[_Slot] = []
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, index=index: self._before(index))
            block.register_forward_hook(lambda *_, index=index: self._after(index))

    def release(self) -> None:
        """Frees the slots until a block computes again; every weight is in main memory."""
        if self._on_cuda:
            self._copying.synchronize()
        for packed in self._packed:  # a block that raised still points to its slot
            packed.point_to(packed.host)
        self._slots = []

    def _before(self, index: int) -> None:
        """Waits for this block's copy, and has the next one made meanwhile."""
        if not self._slots:
            largest = max(packed.host.numel() for packed in self._packed)
            self._slots = [_Slot(largest, self._device) for _ in range(2)]
        slot = self._slot_of(index)
        if slot is None:
            slot = self._slots[0]
            self._fetch(index, slot)
        if self._on_cuda:
            torch.cuda.current_stream(self._device).wait_event(slot.filled)
        self._packed[index].point_to(slot.buffer)
        following = (index + 1) % len(self._packed)
        if self._slot_of(following) is None:
            self._fetch(following, self._slots[1 - self._slots.index(slot)])

    def _after(self, index: int) -> None:
        """The slot may be filled again as soon as the block's kernels have run."""
        slot = self._slot_of(index)
        if slot is not None and self._on_cuda:
            slot.used.record(torch.cuda.current_stream(self._device))
        packed = self._packed[index]
        packed.point_to(packed.host)

    def _fetch(self, index: int, slot: _Slot) -> None:
        host = self._packed[index].host
        with torch.cuda.stream(self._copying) if self._on_cuda else nullcontext():
            if self._on_cuda:
                self._copying.wait_event(slot.used)
            slot.buffer[: host.numel()].copy_(host, non_blocking=True)
            if self._on_cuda:
                slot.filled.record(self._copying)
        slot.holds = index

    def _slot_of(self, index: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.holds == index), None)


class _Slot:
    """Room on the device for one block; its events order the copies after the kernels that still read it."""

    def __init__(self, size_bytes: int, device: torch.device) -> None:
        self.buffer = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        self.filled: Any = torch.cuda.Event() if device.type == "cuda" else None
        self.used: Any = torch.cuda.Event() if device.type == "cuda" else None


class _Place(NamedTuple):
    tensor: torch.Tensor
    start: int
    nbytes: int
    dtype: torch.dtype
    shape: torch.Size

    def within(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer[self.start : self.start + self.nbytes].view(self.dtype).view(self.shape)


class _Packed:
    """One block's parameters and buffers, one after the other in main memory."""

    def __init__(self, block: nn.Module) -> None:
        self._places: list[_Place] = []
        end = 0
        for tensor in (*block.parameters(), *block.buffers()):
            self._places.append(_Place(tensor, end, tensor.nbytes, tensor.dtype, tensor.shape))
            end += -(-tensor.nbytes // _ALIGNED_TO_BYTES) * _ALIGNED_TO_BYTES
        self.host = torch.empty(end, dtype=torch.uint8)
        for place in self._places:
            place.within(self.host).copy_(place.tensor.data)
        self.point_to(self.host)

    def point_to(self, buffer: torch.Tensor) -> None:
        """The tensors' values are those in ``buffer``, which is laid out as ``host`` is."""
        for place in self._places:
            place.tensor.data = place.within(buffer)


def _page_lock(host: torch.Tensor) -> None:
    """In place and to the byte: torch's own pinned memory comes in powers of two, which is half as much again here."""
    torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(host.data_ptr(), host.numel(), 0))


def _unlock(hosts: list[torch.Tensor]) -> None:
    for host in hosts:
        torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(host.data_ptr()))
