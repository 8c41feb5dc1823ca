"""Windows with more than 64 logical processors: groups of up to 64, which most interfaces show one of.

By ``kernel32`` itself: GetActiveProcessorCount, GetActiveProcessorGroupCount and GetProcessGroupAffinity, as
learn.microsoft.com describes them under "Processor Groups". Tested against a fake of that library only.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

from wan22core.records import Reading

_ALL_GROUPS = 0xFFFF
_SPANS_SINCE_BUILD = 20348  # Windows Server 2022; Windows 11 begins at 22000
_SOURCE = "kernel32"


class ProcessorGroups:
    """The groups of a Windows machine, and which of them this process runs in.

    ``kernel32`` is the loaded library, or a :class:`FakeKernel32`; ``build`` the number of the Windows build.
    """

    def __init__(self, kernel32: Any, build: int) -> None:
        self._kernel32 = kernel32
        self._build = build

    @property
    def counts(self) -> list[int]:
        """Active logical processors of each group, in order; empty where the library does not answer."""
        groups = int(self._kernel32.GetActiveProcessorGroupCount())
        return [int(self._kernel32.GetActiveProcessorCount(ctypes.c_ushort(group))) for group in range(groups)]

    def logical_cpus(self) -> Reading[int]:
        """All active logical processors; 0 is how the library says that it failed."""
        found = int(self._kernel32.GetActiveProcessorCount(ctypes.c_ushort(_ALL_GROUPS)))
        source = f"{_SOURCE} GetActiveProcessorCount over {len(self.counts)} processor groups"
        if found == 0:
            return Reading[int].missing(source, "the call failed")
        return Reading[int](value=found, source=source)

    def affinity(self, in_group: Sequence[int]) -> Reading[list[int]]:
        """The logical processors that this process may run on, numbered through the groups in their order.

        ``in_group`` is its affinity as the interfaces of one group see it: numbers within the process's own group. A
        process whose mask leaves processors of its group out was bound to that group. Any other one has the groups
        that its threads are in, and all groups from Windows 11 and Server 2022 on, where a process spans them.
        """
        counts, own = self.counts, self._own_groups()
        if not own:
            return Reading[list[int]].missing(f"{_SOURCE} GetProcessGroupAffinity", "the call failed")
        if len(own) == 1 and in_group and len(in_group) < counts[own[0]]:
            first = sum(counts[: own[0]])
            source = f"psutil, the mask within processor group {own[0]} of {len(counts)}"
            return Reading[list[int]](value=[first + number for number in sorted(in_group)], source=source)
        chosen, why = own, "those that its threads are in"
        if len(own) == 1 and self._build >= _SPANS_SINCE_BUILD:
            chosen, why = list(range(len(counts))), f"Windows build {self._build} lets a process span them"
        elif len(own) == 1:
            why = f"Windows build {self._build} keeps a process in one unless it says otherwise"
        numbers = [sum(counts[:group]) + number for group in sorted(chosen) for number in range(counts[group])]
        named = ", ".join(str(group) for group in sorted(chosen))
        source = f"{_SOURCE} GetProcessGroupAffinity: processor groups {named} of {len(counts)}, {why}"
        return Reading[list[int]](value=numbers, source=source)

    def _own_groups(self) -> list[int]:
        """The groups of this process; asked twice, because the first answer says how many there are."""
        size = ctypes.c_ushort(1)
        process = ctypes.c_void_p(self._kernel32.GetCurrentProcess())
        for _ in range(2):
            found = (ctypes.c_ushort * size.value)()
            if self._kernel32.GetProcessGroupAffinity(process, ctypes.byref(size), found):
                return list(found)[: size.value]
        return []


def windows_groups() -> ProcessorGroups | None:
    """The groups of this machine where it is Windows and has several; None elsewhere."""
    load = getattr(ctypes, "WinDLL", None)
    if load is None:
        return None
    kernel32 = load("kernel32", use_last_error=True)
    kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    kernel32.GetActiveProcessorGroupCount.restype = ctypes.c_ushort  # a WORD: the rest of the register is anything
    kernel32.GetActiveProcessorCount.restype = ctypes.c_uint32
    groups = ProcessorGroups(kernel32, build=int(getattr(sys, "getwindowsversion")().build))  # noqa: B009 - Windows only
    return groups if len(groups.counts) > 1 else None


_COUNT = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_ushort)
_GROUP_COUNT = ctypes.CFUNCTYPE(ctypes.c_ushort)
_PROCESS = ctypes.CFUNCTYPE(ctypes.c_void_p)
_USHORTS = ctypes.POINTER(ctypes.c_ushort)
_AFFINITY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, _USHORTS, _USHORTS)
_THIS_PROCESS = 2**64 - 1  # the pseudo handle, -1


class FakeKernel32:
    """A machine of ``counts`` processors in its groups, whose process is in the groups ``own``; real C functions."""

    def __init__(self, counts: Sequence[int], own: Sequence[int]) -> None:
        self.GetActiveProcessorGroupCount = _GROUP_COUNT(lambda: len(counts))
        self.GetActiveProcessorCount = _COUNT(lambda group: sum(counts) if group == _ALL_GROUPS else counts[group])
        self.GetCurrentProcess = _PROCESS(lambda: _THIS_PROCESS)

        def affinity(process: int | None, size: Any, groups: Any) -> int:
            room, size[0] = size[0], len(own)
            if process != _THIS_PROCESS or not own or room < len(own):
                return 0
            for place, group in enumerate(own):
                groups[place] = group
            return 1

        self.GetProcessGroupAffinity = _AFFINITY(affinity)
