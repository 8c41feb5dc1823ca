"""Bytes of files into tensors: threads read into a bounded ring of buffers, and a buffer is filled again once its copy
has ended. On CUDA the buffers are pinned, the copies asynchronous, and casts run on the device.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch

from wan22core.errors import CorruptWeightsError
from wan22core.model.safetensors_header import Tensor

CHUNK_BYTES = 16 * 2**20
"""Bytes of one read. Of 16 and 64 MiB the smaller was the faster on an H100, by the prototype."""

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
"""torch's dtypes by the format's names; those that no checkpoint of ours can hold are left out."""

OnBytes = Callable[[int], None]

_BUFFERS_ON_CUDA = 2  # one is read into while the other is copied
_READERS_ON_CUDA = 16
_READERS_ON_CPU = 4


class Part(NamedTuple):
    """A run of elements: where they stand in a chunk, and the flat slice of the tensor that they go to."""

    offset: int
    dtype: torch.dtype
    target: torch.Tensor

    @property
    def end(self) -> int:
        return self.offset + self.target.numel() * self.dtype.itemsize


@dataclass(frozen=True)
class Chunk:
    """Consecutive bytes of one file."""

    file: Path
    begin: int
    parts: list[Part] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return self.parts[-1].end if self.parts else 0


def chunks_of(
    file: Path, tensors: Mapping[str, Tensor], targets: Mapping[str, torch.Tensor], chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """A file cut into chunks, each at most ``chunk_bytes`` long and cut between elements; small tensors share one.

    ``targets`` are contiguous and have the shapes of ``tensors``. Each part is aligned to its element in its chunk.
    """
    chunk: Chunk | None = None
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
        dtype, flat, done = DTYPES[tensor.dtype], targets[name].view(-1), 0
        while done < flat.numel():
            position = tensor.begin + done * dtype.itemsize
            if chunk is None or not _fits(position - chunk.begin, dtype, chunk_bytes):
                if chunk is not None:
                    yield chunk
                chunk = Chunk(file, position)
            room = (chunk.begin + chunk_bytes - position) // dtype.itemsize
            part = Part(position - chunk.begin, dtype, flat[done : done + room])
            chunk.parts.append(part)
            done += part.target.numel()
    if chunk is not None:
        yield chunk


def _fits(offset: int, dtype: torch.dtype, chunk_bytes: int) -> bool:
    """Whether an element may stand there in a chunk."""
    return offset % dtype.itemsize == 0 and offset + dtype.itemsize <= chunk_bytes


def read_chunks(chunks: list[Chunk], device: torch.device, on_bytes: OnBytes, *, readers: int | None = None) -> None:
    """Reads every chunk into its tensors on ``device``; when it returns they hold their values.

    ``on_bytes`` is told the bytes of each chunk, by one reader at a time, on the reader's thread; what it raises ends
    the reading, as any other error does: the readers stop after their chunk, and the first error is raised. Memory
    beside the tensors: a chunk for each reader on the CPU, on CUDA two pinned ones and one on the device. Raises
    ``CorruptWeightsError`` for a file that ends too early and ``OSError`` for one that can't be read.
    """
    todo: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
    for chunk in chunks:
        todo.put(chunk)
    stop, telling = threading.Event(), threading.Lock()
    buffer_bytes = max((chunk.nbytes for chunk in chunks), default=0)
    before = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def read() -> None:
        with _Reader(device, buffer_bytes, before) as reader:
            while not stop.is_set():
                try:
                    chunk = todo.get_nowait()
                except queue.Empty:
                    return
                reader.read(chunk)
                with telling:
                    on_bytes(chunk.nbytes)

    count = min(readers or default_readers(device), max(1, len(chunks)))
    with ThreadPoolExecutor(count, thread_name_prefix="weights") as pool:
        try:
            for ended in as_completed([pool.submit(read) for _ in range(count)]):
                ended.result()
        finally:
            stop.set()


def default_readers(device: torch.device) -> int:
    """16 threads hide a disk's latency before a GPU; on the CPU the copies themselves need the cores."""
    return _READERS_ON_CUDA if device.type == "cuda" else min(_READERS_ON_CPU, os.cpu_count() or 1)


class _Reader:
    """One thread's buffers and open file, and on CUDA its stream. Leaving it waits for its copies."""

    def __init__(self, device: torch.device, buffer_bytes: int, before: torch.cuda.Stream | None) -> None:
        on_cuda = before is not None
        count = _BUFFERS_ON_CUDA if on_cuda else 1
        self._device = device
        self._ring = [torch.empty(buffer_bytes, dtype=torch.uint8, pin_memory=on_cuda) for _ in range(count)]
        self._stream = torch.cuda.Stream(device) if on_cuda else None
        self._copied: list[torch.cuda.Event | None] = [None] * count
        self._scratch: torch.Tensor | None = None
        self._file: FileIO | None = None
        self._turn = 0
        if self._stream is not None and before is not None:
            self._stream.wait_stream(before)  # the tensors' memory may be in use until the work queued there is done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._stream is not None:
            self._stream.synchronize()

    def read(self, chunk: Chunk) -> None:
        """Reads a chunk into the next buffer of the ring and copies it on, on CUDA without waiting for the copy."""
        turn = self._turn
        self._turn = (turn + 1) % len(self._ring)
        copied = self._copied[turn]
        if copied is not None:
            copied.synchronize()
        buffer = self._ring[turn][: chunk.nbytes]
        self._fill(buffer, chunk)
        if self._stream is None:
            for part in chunk.parts:
                part.target.copy_(buffer[part.offset : part.end].view(part.dtype))
            return
        with torch.cuda.stream(self._stream):
            self._copy_on(buffer, chunk)
            self._copied[turn] = self._stream.record_event()

    def _fill(self, buffer: torch.Tensor, chunk: Chunk) -> None:
        if self._file is None or self._file.name != str(chunk.file):
            if self._file is not None:
                self._file.close()
            self._file = chunk.file.open("rb", buffering=0)
        self._file.seek(chunk.begin)
        view, done = buffer.numpy().data, 0
        while done < chunk.nbytes:
            if not (read := self._file.readinto(view[done:])):
                raise CorruptWeightsError(
                    f"{chunk.file} ends at byte {chunk.begin + done:,}, in the middle of a tensor.",
                    next_action="It became shorter while it was read: fetch or make it again.",
                )
            done += read

    def _copy_on(self, buffer: torch.Tensor, chunk: Chunk) -> None:
        """Casts on the device: from pinned memory torch would cast on the CPU first, and wait for it."""
        for part in chunk.parts:
            staged = buffer[part.offset : part.end]
            if part.dtype is not part.target.dtype:
                if self._scratch is None:
                    self._scratch = torch.empty(len(self._ring[0]), dtype=torch.uint8, device=self._device)
                staged = self._scratch[part.offset : part.end].copy_(staged, non_blocking=True)
            part.target.copy_(staged.view(part.dtype), non_blocking=True)
