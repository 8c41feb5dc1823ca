"""Recorded telemetry as JSON lines: wan22's own form, and the form of raw NVML traces; both replay as probes."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wan22core.errors import UserInputError
from wan22core.files import write_text
from wan22core.hardware.nvml import GpuReading
from wan22core.records import Sample
from wan22core.telemetry.process import ProcessReading

_MIB = 2**20
_FORM = "wan22-trace-1"
_NEXT = "Give a trace that wan22 or the raw NVML recorder wrote."


class Trace(BaseModel):
    """A header (what, where, how) and the samples in order of time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: dict[str, Any]
    samples: tuple[Sample, ...]


def write_trace(path: Path, header: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """Writes wan22's own form: a header line, then one sample a line, what is missing left out."""
    lines = [json.dumps({"header": {**header, "form": _FORM}})]
    lines += [sample.model_dump_json(exclude_none=True) for sample in samples]
    write_text(path, "\n".join(lines) + "\n")


def read_trace(path: Path) -> Trace:
    """Reads either form; raises ``UserInputError`` that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"The trace {path} can't be read: {error}.", next_action=_NEXT) from error
    if not lines:
        raise UserInputError(f"The trace {path} is empty.", next_action=_NEXT)
    header = _line(path, 1, lines[0]).get("header")
    if not isinstance(header, dict):
        raise UserInputError(f"The first line of {path} holds no header.", next_action=_NEXT)
    convert = Sample.model_validate if header.get("form") == _FORM else _from_raw
    samples = []
    for number, text in enumerate(lines[1:], start=2):
        try:
            samples.append(convert(_line(path, number, text)))
        except (ValidationError, KeyError, TypeError) as error:
            raise UserInputError(f"Line {number} of {path} is no sample: {error}.", next_action=_NEXT) from error
    return Trace(header=header, samples=tuple(samples))


def _line(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UserInputError(f"Line {number} of {path} is no JSON: {error}.", next_action=_NEXT) from error
    if not isinstance(document, dict):
        raise UserInputError(f"Line {number} of {path} is no JSON object.", next_action=_NEXT)
    return document


def _from_raw(line: dict[str, Any]) -> Sample:
    """The raw recorder's units are NVML's own: bytes and milliwatts."""
    return Sample(
        t_s=line["t"],
        gpu_device_mib=line["mem_used"] / _MIB,
        gpu_utilization_percent=line["gpu_util"],
        gpu_memory_utilization_percent=line["mem_util"],
        gpu_power_w=line["power_mw"] / 1000,
        gpu_temperature_c=line["temp_c"],
        gpu_sm_mhz=line["sm_mhz"],
        gpu_memory_mhz=line["mem_mhz"],
        gpu_throttle_reasons=line["throttle"],
    )


class ReplayProbe:
    """A trace in the place of a GPU, a process and a clock: each read gives the sample of the clock's moment."""

    def __init__(self, trace: Trace) -> None:
        self.reasons: dict[str, str] = {}
        self._samples = trace.samples
        self._next = 0
        self.exhausted = threading.Event()

    @property
    def gpu(self) -> _ReplayedGpu:
        return _ReplayedGpu(self)

    @property
    def process(self) -> _ReplayedProcess:
        return _ReplayedProcess(self)

    def monotonic(self) -> float:
        return self.current.t_s

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Moves to the next sample instead of waiting ``seconds``; stops after the last one."""
        del seconds
        if self._next + 1 == len(self._samples):
            self.exhausted.set()
            stop.set()
        else:
            self._next += 1
        return stop.is_set()

    @property
    def current(self) -> Sample:
        return self._samples[self._next]


class _ReplayedGpu:
    def __init__(self, replay: ReplayProbe) -> None:
        self.reasons = replay.reasons
        self._replay = replay

    def read(self, pid: int | None) -> GpuReading:
        del pid
        return GpuReading(**self._replay.current.model_dump(include=set(GpuReading.model_fields) - {"processes"}))


class _ReplayedProcess:
    def __init__(self, replay: ReplayProbe) -> None:
        self._replay = replay

    def read(self, pid: int | None) -> ProcessReading:
        del pid
        return ProcessReading(rss_mib=self._replay.current.rss_mib)
