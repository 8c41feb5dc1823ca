"""What health is judged by: the document's figures, and this machine's readings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from wan22core.telemetry.system import SystemReader
from wan22core.telemetry.thresholds import WATCHES, Line, Quantity, Watch

DOCUMENT = Path(__file__).parents[2] / "docs" / "health.md"


def row(watch: Watch) -> str:
    """A watch as the document's table has it."""

    def cell(line: Line) -> str:
        held = f" for {line.hold_s:g} s" if line.hold_s else ""
        action = f", `{line.action.value}`" if line.action is not None else ""
        return f"{line.at:g}{held} {line.level.value}{action}"

    unit = f"{watch.unit}, low is bad" if watch.low_is_bad else watch.unit
    lines = "; ".join(cell(line) for line in watch.lines)
    return f"| `{watch.quantity.value}` | {unit} | {lines} | {watch.band:g} | {watch.calm_s:g} |".replace("|  |", "| |")


def test_the_document_has_the_figures_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [row(watch) for watch in WATCHES if row(watch) not in text] == []
    assert [watch.quantity for watch in WATCHES] == list(Quantity)


def test_this_machine_is_read_at_most_once_a_second(tmp_path: Path) -> None:
    """The first reading has no processor share and says why."""
    read = SystemReader(tmp_path)
    first, early, second = read(10.0), read(10.9), read(11.0)
    assert early is None
    assert first is not None
    assert first.cpu_percent is None
    assert read.reasons == {"cpu_percent": "the processors' times were not read twice"}
    assert second is not None
    for percent in (first.ram_percent, first.disk_percent, second.ram_percent, second.disk_percent):
        assert percent is not None
        assert 0 < percent <= 100


class Times(NamedTuple):
    """Linux's counters, as far as they matter, in seconds."""

    user: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    guest: float = 0.0


def test_the_processors_share_is_of_the_time_between_two_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest's time is in the user's already; waiting for a disk is idle; counters that stand still say nothing."""
    later = Times(user=3, idle=4, iowait=1, guest=3)
    readings = iter([Times(), later, later])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    read = SystemReader(tmp_path)
    shares = [reading.cpu_percent for reading in (read(0.0), read(1.0), read(2.0)) if reading is not None]
    assert shares == [None, 37.5, None]


def test_a_folder_whose_disk_can_not_be_asked_is_a_reason(tmp_path: Path) -> None:
    read = SystemReader(tmp_path / "gone")
    reading = read(0.0)
    assert reading is not None
    assert reading.disk_percent is None
    assert read.reasons["disk_percent"].endswith("can't be asked: No such file or directory")
