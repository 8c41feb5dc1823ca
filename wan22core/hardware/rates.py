"""Rates of this machine that somebody measured: kept beside the data, by host, until they are measured again."""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from wan22core.errors import UserInputError
from wan22core.files import write_json
from wan22core.hardware.disk_rate import DiskRate
from wan22core.records import Reading, Record

_FILE = "rates.json"


class CopyRates(Record):
    """Copies from main memory to a GPU, bytes that arrive there a second."""

    device_name: str | None
    """The GPU that they went to; None where there was none."""
    copied_bytes: int | None
    """Bytes of one copy."""
    pageable_bytes_s: Reading[float]
    """From memory as it is allocated."""
    cast_bytes_s: Reading[float]
    """From fp32 in such memory, cast to bf16 on the CPU first, as stock diffusers loads a transformer."""
    pinned_bytes_s: Reading[float]
    """From page-locked memory: the bus alone."""

    @classmethod
    def missing(cls, reason: str) -> CopyRates:
        """No figure, and why."""
        unknown = Reading[float].missing("torch", reason)
        return cls(
            device_name=None,
            copied_bytes=None,
            pageable_bytes_s=unknown,
            cast_bytes_s=unknown,
            pinned_bytes_s=unknown,
        )


class MachineRates(Record):
    """What was measured on one machine, each part when it was last asked for."""

    disk: DiskRate
    disk_measured_at: datetime
    copies: CopyRates
    copies_measured_at: datetime | None
    """None where torch was never asked."""

    @model_validator(mode="before")
    @classmethod
    def _dated_by_parts(cls, document: Any) -> Any:
        """Older files have one date for both."""
        if not isinstance(document, dict) or "measured_at" not in document:
            return document
        both = document["measured_at"]
        rest = {name: part for name, part in document.items() if name != "measured_at"}
        return {"disk_measured_at": both, "copies_measured_at": both, **rest}


class _RatesFile(Record):
    """Several hosts may share one data folder."""

    hosts: dict[str, MachineRates] = Field(default_factory=dict)


def load_rates(data_dir: Path) -> MachineRates | None:
    """The rates of this host, None where nobody measured them.

    Raises ``UserInputError`` for a file that can't be understood.
    """
    return _read(data_dir).hosts.get(platform.node())


def keep_rates(data_dir: Path, rates: MachineRates) -> None:
    """Keeps the rates of this host, in place of earlier ones."""
    hosts = {**_read(data_dir).hosts, platform.node(): rates}
    write_json(data_dir / _FILE, _RatesFile(hosts=hosts).model_dump(mode="json"))


def _read(data_dir: Path) -> _RatesFile:
    path = data_dir / _FILE
    if not path.exists():
        return _RatesFile()
    try:
        return _RatesFile.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise UserInputError(
            f"{path} can't be understood.", next_action="Delete it, and run wan22 hardware --measure-rates again."
        ) from error
