"""What the page cache holds is seen, not assumed: real files on the disk of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wan22core import page_cache
from wan22core.page_cache import Cached, cached, empty, fill, state_of

MIB = 2**20


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 64 and 192 MiB that can be seen cold, or the test is skipped: tmpfs keeps everything.

    Each look brings 16 pages of a file in; in files of few pages, the next would come upon them.
    """
    made = [tmp_path / "small.bin", tmp_path / "large.bin"]
    for path, mib in zip(made, (64, 192), strict=True):
        path.write_bytes(bytes(mib * MIB))
    if reason := next((reason for reason in map(empty, made) if reason), None):
        pytest.skip(f"files here can't be made cold: {reason}")
    return made


def test_files_are_cold_then_warm(files: list[Path]) -> None:
    """Looking at them changes nothing: it stays cold however often it is asked."""
    assert [cached(files).state for _ in range(3)] == ["cold"] * 3
    assert fill(files) == 256 * MIB
    assert (cached(files), cached(files).state) == (Cached(1.0), "warm")
    assert [empty(path) for path in files] == [None, None]
    assert cached(files).state == "cold"


def test_a_small_file_is_seen_cold_as_well(files: list[Path], tmp_path: Path) -> None:
    """A checkpoint has files of a few hundred bytes: no page of them is looked at twice, a look would warm it."""
    for size in (1, 494, 4096, 4097, 9 * 4096, 16 * 4096 + 1):
        path = tmp_path / str(size)
        path.write_bytes(os.urandom(size))
        assert empty(path) is None
        fill([path])
        assert cached([path]) == Cached(1.0)


def test_the_share_is_one_of_bytes(files: list[Path]) -> None:
    """The small file is a quarter of the bytes: neither cold nor warm."""
    fill(files[:1])
    assert cached(files).fraction == pytest.approx(0.25, abs=0.05)
    assert cached(files).state == "unknown"


def test_what_was_sampled_for_an_identity_stays_cold(files: list[Path]) -> None:
    """Readers of headers and samples come before every load."""
    with files[1].open("rb") as stream:
        for position in (0, 96 * MIB, 192 * MIB - 65_536):
            stream.seek(position)
            stream.read(65_536)
    assert cached(files[1:]).fraction < 0.5


@pytest.mark.parametrize(
    ("fraction", "state"), [(None, "unknown"), (0.0, "cold"), (0.05, "cold"), (0.06, "unknown"), (0.95, "warm")]
)
def test_states(fraction: float | None, state: str) -> None:
    assert state_of(fraction) == state


def test_a_system_without_the_call_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS and Windows have it."""
    (tmp_path / "a").write_bytes(b"0" * MIB)
    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    found = cached([tmp_path / "a"])
    assert (found.fraction, found.state) == (None, "unknown")
    assert "can't say" in str(found.reason)
    assert page_cache.empty(tmp_path / "a") is not None


def test_what_is_not_there_is_not_cold(tmp_path: Path) -> None:
    assert (cached([]).fraction, cached([]).reason) == (None, "there is nothing to read")
    missing = cached([tmp_path / "gone"])
    assert (missing.fraction, "gone can't be read" in str(missing.reason)) == (None, True)
