"""What parent and child say to each other: one JSON document a line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from wan22core.records import (
    AppliedSetting,
    Census,
    LoadedComponent,
    MemoryPeaks,
    MemoryReading,
    Progress,
    Tile,
    TorchFacts,
)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Message):
    """Parent to child: do this."""

    name: str
    """``start``, ``job`` or a stage."""
    arguments: dict[str, Any] = Field(default_factory=dict)


class Heartbeat(_Message):
    """The child's interpreter is alive; silent while a C call holds its lock."""

    kind: Literal["heartbeat"] = "heartbeat"


class ProgressMessage(_Message):
    """How far the running stage is."""

    kind: Literal["progress"] = "progress"
    progress: Progress


class LogMessage(_Message):
    """One record of the child's log."""

    kind: Literal["log"] = "log"
    level: int
    logger: str
    text: str


class Success(_Message):
    """The answer to a request."""

    kind: Literal["success"] = "success"
    result: dict[str, Any]


class Failure(_Message):
    """A request that ended in an exception; the child lives on."""

    kind: Literal["failure"] = "failure"
    code: str
    """Code of ``errors.py``."""
    message: str
    next_action: str
    details: dict[str, Any]


AnyMessage = Heartbeat | ProgressMessage | LogMessage | Success | Failure
MESSAGE: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="kind")])


class StartReport(_Message):
    """What the child found when it started."""

    device: str
    """The torch device that ``auto`` became."""
    torch: TorchFacts | None
    """None when nothing in the child imported torch."""
    threads: int | None
    """CPU threads, read back from torch after they were set."""
    tf32: str | None = None
    """Whether fp32 products run as TF32, as torch says: ``on``, ``off``, ``products off, convolutions on``."""
    settings: list[AppliedSetting] = Field(default_factory=list)
    """Host settings that were asked for, as they were read back."""


class StageResult(MemoryPeaks):
    """What the child measured around one stage."""

    wall_s: float
    """Device synchronised before and after."""
    components: list[LoadedComponent] = Field(default_factory=list)
    cached_fraction: float | None = None
    """Share of the checkpoint's bytes that the page cache held before a load."""
    step_times_s: list[float] = Field(default_factory=list)
    memory_end: MemoryReading = MemoryReading()
    allocator_retries: int | None = None
    frames_produced: int | None = None
    output_finite: bool | None = None
    output_constant: bool | None = None
    tile: Tile | None = None
    from_cache: bool = False
    compile_s: float | None = None
    compile_cache: Literal["none", "cold", "warm"] | None = None
    forwards: int | None = None
    cached_forwards: int | None = None
    prepared: bool = False
    census: list[Census] = Field(default_factory=list)
    attention_backend: str | None = None
    settings: list[AppliedSetting] = Field(default_factory=list)
    """Those of the CUDA device, with the first stage: it makes the context that they need."""
