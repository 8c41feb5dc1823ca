"""Windows machines with more than 64 logical processors, by real C functions that answer for them."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from wan22core.hardware.cpu import cpu_profile
from wan22core.hardware.detect import detect
from wan22core.hardware.processor_groups import FakeKernel32, ProcessorGroups, windows_groups
from wan22core.records import CpuProfile

WINDOWS_10, SERVER_2022, WINDOWS_11 = 19045, 20348, 22631
WHOLE_GROUP = list(range(64))


@pytest.fixture
def without_linux(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither ``/proc`` nor ``/sys``, and no call that Linux alone has."""
    read_text, glob = Path.read_text, Path.glob

    def reads(path: Path, *arguments: Any, **named: Any) -> str:
        if _is_linux(path):
            raise FileNotFoundError(path)
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", reads)
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(()) if _is_linux(path) else glob(path, pattern))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    return monkeypatch


def _is_linux(path: Path) -> bool:
    return path.is_relative_to("/proc") or path.is_relative_to("/sys")


def windows(patch: pytest.MonkeyPatch, mask: list[int], build: int, counts: list[int], own: list[int]) -> CpuProfile:
    """A machine as psutil sees it from within one group, and as kernel32 sees it whole."""
    patch.setattr(psutil.Process, "cpu_affinity", lambda _: mask, raising=False)
    patch.setattr(psutil, "cpu_count", lambda logical=True: 64 if logical else sum(counts) // 2)
    return cpu_profile(groups=ProcessorGroups(FakeKernel32(counts, own), build))


@pytest.mark.parametrize(
    ("mask", "build", "own", "usable", "source"),
    [
        (WHOLE_GROUP, WINDOWS_10, [1], 64, "groups 1 of 2, Windows build 19045 keeps a process in one unless"),
        (WHOLE_GROUP, WINDOWS_11, [1], 128, "groups 0, 1 of 2, Windows build 22631 lets a process span them"),
        (WHOLE_GROUP, SERVER_2022, [0], 128, "groups 0, 1 of 2, Windows build 20348 lets a process span them"),
        ([], WINDOWS_10, [0, 1], 128, "groups 0, 1 of 2, those that its threads are in"),
        ([3, 4], WINDOWS_11, [1], 2, "the mask within processor group 1 of 2"),
    ],
)
def test_a_5995wx_on_windows(
    without_linux: pytest.MonkeyPatch, mask: list[int], build: int, own: list[int], usable: int, source: str
) -> None:
    """All 128 threads are counted; usable are those of the process's groups, by what its Windows does with groups."""
    profile = windows(without_linux, mask, build, [64, 64], own)
    assert (profile.logical_cpus.value, profile.physical_cores.value) == (128, 64)
    assert profile.logical_cpus.source == "kernel32 GetActiveProcessorCount over 2 processor groups"
    assert profile.usable_cpus.value == usable
    assert source in profile.affinity.source


def test_processors_are_numbered_through_the_groups(without_linux: pytest.MonkeyPatch) -> None:
    """The second of two unequal groups begins where the first ends."""
    bound = windows(without_linux, [0, 5], WINDOWS_11, [48, 32], [1])
    assert bound.affinity.value == [48, 53]
    assert windows(without_linux, list(range(32)), WINDOWS_10, [48, 32], [1]).affinity.value == list(range(48, 80))


def test_a_library_that_does_not_answer_is_a_reason(without_linux: pytest.MonkeyPatch) -> None:
    """No group of this process, and no count: the reason stands there, and psutil's count of what it sees."""
    profile = windows(without_linux, [], WINDOWS_11, [0, 0], [])
    assert (profile.affinity.value, profile.affinity.reason) == (None, "the call failed")
    assert (profile.logical_cpus.value, profile.logical_cpus.source) == (64, "psutil")


def test_other_systems_have_no_groups() -> None:
    assert windows_groups() is None or os.name == "nt"


def test_the_number_of_groups_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the upper half of the register holds is no part of it."""
    kernel32 = FakeKernel32([64, 64], [0])
    kernel32.GetActiveProcessorGroupCount = ctypes.CFUNCTYPE(ctypes.c_uint32)(lambda: 0xABCD0002)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: kernel32, raising=False)
    monkeypatch.setattr(sys, "getwindowsversion", lambda: SimpleNamespace(build=WINDOWS_11), raising=False)
    groups = windows_groups()
    assert groups is not None
    assert groups.counts == [64, 64]


def test_detection_does_without_what_linux_has(without_linux: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A whole profile on a system that has none of Linux's files and calls; what is missing has its reason."""
    without_linux.delattr(psutil.Process, "cpu_affinity", raising=False)
    profile = detect(tmp_path)
    assert profile.cpu.logical_cpus.source == "psutil"
    assert profile.cpu.affinity.reason == "this system has no CPU affinity to ask for"
    assert profile.memory.total_mib.value == psutil.virtual_memory().total // 2**20
    assert profile.disk.total_mib.value is not None
