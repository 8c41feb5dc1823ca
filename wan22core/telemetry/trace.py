"""Recorded telemetry as JSON lines, a header first: wan22's own form, and that of the raw NVML recorder."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wan22core.errors import UserInputError
from wan22core.files import LineWriter, whole_lines
from wan22core.records import Sample

_MIB = 2**20
_NEXT = "Give a trace that wan22 or the raw NVML recorder wrote."


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TraceHeader(_Line):
    """How, when and on what a trace was recorded."""

    schema_version: Literal[1] = 1
    how: str
    """The command that ran, or how the trace was made by hand."""
    recorded_at: datetime | None
    """None where the recorder did not say."""
    gpu: str | None
    """Name of the GPU; None for a run without one."""
    driver: str | None
    interval_s: float | None = None
    """Requested distance of two samples."""
    vram_total_mib: float | None = None
    power_limit_w: float | None = None


class Trace(_Line):
    """A header and the samples in order of time."""

    header: TraceHeader
    samples: tuple[Sample, ...] = Field(min_length=1)


class _RawUnits(_Line):
    """The only units that the raw recorder is known to write."""

    t: Literal["s"]
    mem: Literal["bytes"]
    power: Literal["mW"]
    clocks: Literal["MHz"]
    temp: Literal["C"]
    util: Literal["%"]


class _RawHeader(_Line):
    gpu: str
    driver: str
    uuid: str
    interval_s: float
    memory_total_bytes: int
    command: str
    power_limit_mw: float
    unit: _RawUnits

    def read(self) -> TraceHeader:
        return TraceHeader(
            how=self.command,
            recorded_at=None,
            gpu=self.gpu,
            driver=self.driver,
            interval_s=self.interval_s,
            vram_total_mib=self.memory_total_bytes / _MIB,
            power_limit_w=self.power_limit_mw / 1000,
        )


class _RawSample(_Line):
    t: float
    mem_used: int
    gpu_util: float
    mem_util: float
    power_mw: float
    temp_c: float
    sm_mhz: float
    mem_mhz: float
    throttle: int
    pstate: int

    def read(self) -> Sample:
        return Sample(
            t_s=self.t,
            gpu_device_mib=self.mem_used / _MIB,
            gpu_utilization_percent=self.gpu_util,
            gpu_memory_utilization_percent=self.mem_util,
            gpu_temperature_c=self.temp_c,
            gpu_power_w=self.power_mw / 1000,
            gpu_sm_mhz=self.sm_mhz,
            gpu_memory_mhz=self.mem_mhz,
            gpu_throttle_reasons=self.throttle,
        )


Model = TypeVar("Model", bound=BaseModel)


class TraceWriter:
    """Writes wan22's own form as the samples come: a header line, then one sample a line, what is missing left out.

    A trace that is there already, of an earlier process of the run, goes on. Raises what ``LineWriter`` raises.
    """

    def __init__(self, path: Path, header: TraceHeader) -> None:
        self._lines = LineWriter(path)
        if self._lines.is_empty:
            self._lines.write(json.dumps({"header": header.model_dump(mode="json")}))
            self._lines.flush()

    def append(self, sample: Sample) -> None:
        """One sample; it may stay in memory until ``flush``."""
        self._lines.write(json.dumps(sample.model_dump(exclude_none=True), allow_nan=False))

    def flush(self) -> None:
        """What was appended survives this process."""
        self._lines.flush()

    def close(self) -> None:
        """Ends the trace; harmless a second time."""
        self._lines.close()


def read_trace(path: Path) -> Trace:
    """Reads either form; raises ``UserInputError`` that names the line. A last line that a kill cut off is left out."""
    try:
        lines = whole_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"The trace {path} can't be read: {error}.", next_action=_NEXT) from error
    if len(lines) < 2:
        raise UserInputError(f"The trace {path} holds no sample.", next_action=_NEXT)
    first = _json(path, 1, lines[0]).get("header")
    if not isinstance(first, dict):
        _refuse(path, 1, "it holds no header")
    raw = "unit" in first  # wan22's own form has its units in the names
    header = _valid(_RawHeader, path, 1, first).read() if raw else _valid(TraceHeader, path, 1, first)
    numbered = [(number, _json(path, number, text)) for number, text in enumerate(lines[1:], start=2)]
    samples = tuple(
        _valid(_RawSample, path, number, line).read() if raw else _valid(Sample, path, number, line)
        for number, line in numbered
    )
    for (number, _), (before, after) in zip(numbered[1:], pairwise(samples), strict=True):
        if after.t_s < before.t_s:
            _refuse(path, number, f"its time {after.t_s} s is before that of the line above, {before.t_s} s")
    return Trace(header=header, samples=samples)


def _valid(model: type[Model], path: Path, number: int, line: dict[str, Any]) -> Model:
    try:
        return model.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        _refuse(path, number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def _json(path: Path, number: int, text: str) -> dict[str, Any]:
    def no_number(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number")

    try:
        document = json.loads(text, parse_constant=no_number)
    except ValueError as error:
        _refuse(path, number, f"it is no JSON: {error}")
    if not isinstance(document, dict):
        _refuse(path, number, "it is no JSON object")
    return document


def _refuse(path: Path, number: int, what: str) -> NoReturn:
    raise UserInputError(f"Line {number} of the trace {path} is wrong: {what}.", next_action=_NEXT) from None
