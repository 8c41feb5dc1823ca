"""The lines of a file of measurements: a head, the device's ceilings where they were asked for, the measurements."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from wan22core.errors import UserInputError
from wan22core.files import whole_lines
from wan22core.records import Labels, Record, RepeatKind, RepeatRow
from wan22core.statistics import summarize


class Asked(Record):
    """What the lines of one file have in common."""

    model: str
    workload: str
    steps: int
    repeats: int
    device: str
    vram_limit_mib: int | None
    cold: bool = False
    """The page cache gave up the checkpoint's files before each measurement."""


class CeilingName(StrEnum):
    """What a device is asked for at most; the unit stands in the name."""

    GEMM = "bf16_gemm_flop_s"
    ATTENTION_CUDNN = "attention_cudnn_flop_s"
    ATTENTION_FLASH = "attention_flash_flop_s"
    ATTENTION = "attention_flop_s"
    """As torch dispatches it by itself."""
    DEVICE_COPY = "device_copy_bytes_s"
    """Read and written."""
    PINNED_COPY = "pinned_copy_bytes_s"
    """From pinned main memory, arriving."""
    DISK_DIRECT_1 = "disk_direct_1_thread_bytes_s"
    DISK_DIRECT_4 = "disk_direct_4_threads_bytes_s"
    DISK_DIRECT_16 = "disk_direct_16_threads_bytes_s"
    DISK_COLD = "disk_cold_bytes_s"
    """Through the page cache that held nothing, one thread."""
    DISK_WARM = "disk_warm_bytes_s"
    """From the page cache, one thread."""


ATTENTIONS = (CeilingName.ATTENTION_CUDNN, CeilingName.ATTENTION_FLASH, CeilingName.ATTENTION)
DIRECT_READS = {1: CeilingName.DISK_DIRECT_1, 4: CeilingName.DISK_DIRECT_4, 16: CeilingName.DISK_DIRECT_16}
"""Reads past the page cache, by their threads."""


class Ceiling(Record):
    """One sustained rate: what was done in a second, once each sample; warm-ups are not among them."""

    name: CeilingName
    what: str
    """The fixed shape."""
    samples: list[float] = Field(default_factory=list)
    reason: str | None = None
    """Why there are none."""

    @property
    def median(self) -> float | None:
        return summarize(self.samples).median


class Ceilings(Record):
    """What one device gave in one child process."""

    device: str
    device_name: str | None
    torch: str
    scaled_down: bool
    """Small shapes, which exercise the way and are no measure of the device."""
    found: list[Ceiling]

    def best_of(self, names: tuple[CeilingName, ...]) -> Ceiling | None:
        """The one with the highest median; None where none was measured."""
        measured = [each for each in self.found if each.name in names and each.samples]
        return max(measured, key=lambda each: each.median or 0.0, default=None)


class Measured(Record):
    """One measurement."""

    recipe: str
    round: int
    wall_s: float
    """Seconds that it took with all that is around it, which the budget counts with."""
    run_dir: str
    labels: Labels
    environment: dict[str, str | None]
    rows: list[RepeatRow]
    stages_s: dict[str, float] = Field(default_factory=dict)
    """Median seconds of each stage, warm-ups left out."""
    load_bytes: int | None = None
    """Bytes of the files that the load read."""
    out_of_order: list[str]
    """Stages whose memory readings can't be true."""
    error: str | None

    def values(self, metric: str) -> list[float]:
        """Of the measured videos; none of a run that broke."""
        found = [getattr(row, metric) for row in self.rows if row.kind is RepeatKind.MEASURED and self.error is None]
        return [value for value in found if value is not None]


class Line(Record):
    """A line of the file: its head, the ceilings, or a measurement."""

    asked: Asked | None = None
    ceilings: Ceilings | None = None
    measured: Measured | None = None


class Saved(NamedTuple):
    """What a file holds."""

    asked: Asked | None
    """None where the file is empty or not there."""
    ceilings: Ceilings | None
    """The last that were measured."""
    measured: list[Measured]


def read(path: Path) -> Saved:
    """What earlier calls left in ``path``, nothing where it is not there.

    Raises ``UserInputError`` for a file that can't be understood.
    """
    if not path.exists():
        return Saved(None, None, [])
    try:
        lines = [Line.model_validate_json(line) for line in whole_lines(path)]
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserInputError(
            f"{path} is no file of measurements: {str(error).splitlines()[0]}",
            next_action="Name one that benchmarks/gpu.py wrote with --out.",
        ) from error
    ceilings = [line.ceilings for line in lines if line.ceilings is not None]
    return Saved(
        asked=lines[0].asked if lines else None,
        ceilings=ceilings[-1] if ceilings else None,
        measured=[line.measured for line in lines if line.measured is not None],
    )


def read_for(path: Path, asked: Asked) -> Saved:
    """The same; ``UserInputError`` for a file of other measurements than are ``asked`` for."""
    saved = read(path)
    if saved.asked not in (None, asked) or (saved.asked is None and saved.measured):
        raise UserInputError(
            f"{path} holds other measurements: {saved.asked!r}.", next_action="Name another file with --out."
        )
    return saved


def of_one_environment(measured: list[Measured]) -> list[Measured]:
    """Those of the host and the environment of the last one: others are not compared with it."""
    return [
        each
        for each in measured
        if (each.environment, each.labels.host) == (measured[-1].environment, measured[-1].labels.host)
    ]
