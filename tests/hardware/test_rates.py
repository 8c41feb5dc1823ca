"""Rates that are measured: what counts as the disk's, what is kept, what a plan makes of it."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wan22core.errors import InsufficientDiskSpaceError, UserInputError
from wan22core.hardware.disk_rate import Clock, DiskRate, disk_rate
from wan22core.hardware.rates import CopyRates, MachineRates, keep_rates, load_rates
from wan22core.records import Reading

MIB = 2**20
DAY = datetime(2026, 11, 24, tzinfo=UTC)
NEVER = Reading[float].missing("test", "not measured")


def seconds(step_s: float = 2.0) -> Clock:
    """A clock that moves by ``step_s`` each time it is asked."""
    times: Iterator[float] = itertools.count(0.0, step_s)
    return lambda: next(times)


def measured(**changes: object) -> MachineRates:
    disk = DiskRate(
        path="/weights",
        read_bytes=MIB,
        files=["a"],
        cold_bytes_s=Reading(value=1.5e9, source="test"),
        direct_bytes_s=Reading(value=1.8e9, source="test"),
        warm_bytes_s=NEVER,
    )
    values = {"disk": disk, "copies": CopyRates.missing("no GPU")}
    days = {"disk_measured_at": DAY, "copies_measured_at": DAY}
    return MachineRates.model_validate({**values, **days, **changes})


def test_a_temporary_file_is_read_and_removed(tmp_path: Path) -> None:
    """4 MiB in the two seconds of each pass; nothing stays, and the page cache was seen empty or it is no cold rate."""
    rate = disk_rate(tmp_path / "weights", file_bytes=4 * MIB, clock=seconds())
    assert rate.read_bytes == 4 * MIB
    assert list((tmp_path / "weights").iterdir()) == []
    through = rate.warm_bytes_s if rate.cold_bytes_s.value is None else rate.cold_bytes_s
    assert through.value == 2 * MIB
    assert (rate.cold_bytes_s.value is None) != (rate.warm_bytes_s.value is None)
    assert rate.direct_bytes_s.value == 2 * MIB or "O_DIRECT" in str(rate.direct_bytes_s.reason)


def test_the_largest_files_of_a_checkpoint_are_read_up_to_the_limit(tmp_path: Path) -> None:
    """Their first part where they are longer; other files are left alone, and so is the checkpoint."""
    sizes = {"vae/small.safetensors": 1, "transformer/large.safetensors": 3, "text/middle.safetensors": 2, "big.bin": 9}
    for name, mib in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(os.urandom(mib * MIB))
    rate = disk_rate(tmp_path, file_bytes=4 * MIB, limit_bytes=4 * MIB, clock=seconds())
    assert rate.files == ["large.safetensors", "middle.safetensors"]
    assert rate.read_bytes >= 4 * MIB
    assert {name: (tmp_path / name).stat().st_size // MIB for name in sizes} == sizes
    too_little = disk_rate(tmp_path, file_bytes=7 * MIB, limit_bytes=8 * MIB, clock=seconds())
    assert too_little.files[0].startswith(".rate.")


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system can't say what the page cache holds")
def test_a_file_that_stays_in_memory_gives_no_disk_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the call that empties the cache does nothing, the rate is the cache's: warm, and nobody's disk."""
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    rate = disk_rate(tmp_path, file_bytes=4 * MIB, clock=seconds())
    assert rate.cold_bytes_s.value is None
    assert rate.warm_bytes_s.value == 2 * MIB
    assert "page cache" in str(rate.cold_bytes_s.reason)


@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        ("posix_fadvise", "this system has no call that empties the page cache of a file"),
        ("RWF_NOWAIT", "this system can't say whether the page cache gave the file up"),
    ],
)
def test_a_system_without_the_calls_says_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, reason: str
) -> None:
    """As macOS and Windows have it: no crash, and a reason instead of a cold rate."""
    monkeypatch.delattr(os, absent, raising=False)
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    rate = disk_rate(tmp_path, file_bytes=MIB, clock=seconds())
    assert (rate.cold_bytes_s.reason, rate.direct_bytes_s.reason) == (reason, "this system has no O_DIRECT")
    assert rate.warm_bytes_s.value == MIB / 2


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    needed = shutil.disk_usage(tmp_path).total * 2
    with pytest.raises(InsufficientDiskSpaceError, match="Measuring the disk needs"):
        disk_rate(tmp_path / "weights", file_bytes=needed, limit_bytes=needed)
    assert not (tmp_path / "weights").exists()


def test_a_full_disk_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space was there when it was asked for, and is gone before the file is whole."""

    def full(_: int) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "urandom", full)
    with pytest.raises(InsufficientDiskSpaceError, match="The disk is full"):
        disk_rate(tmp_path, file_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


def test_rates_are_kept_for_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that share a data folder don't get each other's."""
    assert load_rates(tmp_path) is None
    keep_rates(tmp_path, measured())
    assert load_rates(tmp_path) == measured()
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert load_rates(tmp_path) is None
    other = measured(copies=CopyRates.missing("torch was not asked"))
    keep_rates(tmp_path, other)
    assert load_rates(tmp_path) == other
    monkeypatch.undo()
    assert load_rates(tmp_path) == measured()


def test_a_file_with_one_date_loads(tmp_path: Path) -> None:
    """As it was written before each part had its own."""
    keep_rates(tmp_path, measured())
    path = tmp_path / "rates.json"
    document = json.loads(path.read_text())
    (rates,) = document["hosts"].values()
    rates["measured_at"] = rates.pop("disk_measured_at")
    del rates["copies_measured_at"]
    path.write_text(json.dumps(document))
    assert load_rates(tmp_path) == measured()


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text("{")
    with pytest.raises(UserInputError, match=r"rates\.json can't be understood"):
        load_rates(tmp_path)
