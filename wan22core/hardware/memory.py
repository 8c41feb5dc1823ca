"""Main memory, and the disk of the data folder."""

from __future__ import annotations

from pathlib import Path

import psutil

from wan22core.hardware.cgroup import cgroup_memory_left, cgroup_memory_limit
from wan22core.hardware.readings import known
from wan22core.hardware.system_files import HERE, fields, read_text
from wan22core.records import DiskProfile, MemoryProfile, Reading

_MIB = 2**20


def memory_profile(root: Path = HERE) -> MemoryProfile:
    """Main memory by ``/proc/meminfo`` under ``root``, by psutil on a machine that has no such file."""
    lines = fields(read_text(root / "proc/meminfo"))
    total, available = _mib(lines.get("MemTotal")), _mib(lines.get("MemAvailable"))
    source = "/proc/meminfo"
    if total is None and root == HERE:
        memory, source = psutil.virtual_memory(), "psutil"
        total, available = memory.total // _MIB, memory.available // _MIB
    return MemoryProfile(
        total_mib=known(total, source, "the system does not say"),
        available_mib=known(available, source, "the system does not say"),
        limit_mib=cgroup_memory_limit(root),
    )


def memory_headroom(root: Path = HERE) -> Reading[int]:
    """MiB that can still be taken: what is available, and no more than the control groups leave of their limits."""
    memory = memory_profile(root)
    if memory.limit_mib.value is None or memory.available_mib.value is None:
        return memory.available_mib
    left = cgroup_memory_left(root)
    if left.value is None or left.value < memory.available_mib.value:
        return left
    return memory.available_mib


def disk_profile(folder: Path) -> DiskProfile:
    """The disk of ``folder``, which need not exist yet: then the disk it would be made on."""
    existing = folder.resolve()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        usage = psutil.disk_usage(str(existing))
    except OSError as error:
        reason = f"the disk can't be asked: {error.strerror or error}"
        total, free = Reading[int].missing("psutil", reason), Reading[int].missing("psutil", reason)
    else:
        total = Reading[int](value=usage.total // _MIB, source="psutil")
        free = Reading[int](value=usage.free // _MIB, source="psutil")
    return DiskProfile(path=str(folder), total_mib=total, free_mib=free, filesystem=_filesystem(existing))


def _filesystem(folder: Path) -> Reading[str]:
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    mount = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return known(mount.fstype or None if mount else None, "psutil", "no mount point is listed for it")


def _mib(text: str | None) -> int | None:
    """``/proc/meminfo`` writes ``kB`` and means KiB."""
    number = (text or "").removesuffix("kB").strip()
    return int(number) // 1024 if number.isdigit() else None
