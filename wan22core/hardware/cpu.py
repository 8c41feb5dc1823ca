"""The processors: what there is, and how much of it this process may use. Linux by its files, else psutil."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypeVar

import psutil

from wan22core.hardware.cgroup import cgroup_quota
from wan22core.hardware.formats.cpu_files import cpuinfo_fields
from wan22core.hardware.readings import known
from wan22core.hardware.system_files import HERE, cpu_list, fields, read_text
from wan22core.records import CpuProfile, Reading

_CPU = Path("sys/devices/system/cpu")
_CPUINFO = "/proc/cpuinfo"
_UNSAID = "the system does not say"
T = TypeVar("T")


def cpu_profile(root: Path = HERE) -> CpuProfile:
    """The processors by ``/proc`` and ``/sys`` under ``root``; psutil is asked for this machine only."""
    blocks = _cpuinfo(root)
    said = cpuinfo_fields(_CPUINFO, blocks) if blocks else {}
    affinity, quota = _affinity(root), cgroup_quota(root)
    logical = _or_else(said.get("logical_cpus"), _psutil_count(root, logical=True))
    return CpuProfile(
        model=_or_else(said.get("model"), _platform_model(root)),
        physical_cores=_or_else(said.get("physical_cores"), _sibling_groups(root), _psutil_count(root, logical=False)),
        logical_cpus=logical,
        usable_cpus=_usable_cpus(logical, affinity, quota),
        sockets=_or_else(said.get("sockets"), _packages(root)),
        numa_nodes=_numa_nodes(root),
        affinity=affinity,
        cgroup_quota_cpus=quota,
    )


def _or_else(*readings: Reading[T] | None) -> Reading[T]:
    """The first that has a value; without one the first reason."""
    said = [reading for reading in readings if reading is not None]
    return next((reading for reading in said if reading.value is not None), said[0])


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """One block a logical CPU; trailing blocks about the board have no ``processor``."""
    blocks = (fields(block) for block in read_text(root / "proc/cpuinfo").split("\n\n"))
    return [block for block in blocks if "processor" in block]


def _platform_model(root: Path) -> Reading[str]:
    return known(platform.processor() or None if root == HERE else None, "platform", "the system does not name it")


def _psutil_count(root: Path, *, logical: bool) -> Reading[int]:
    return known(psutil.cpu_count(logical=logical) if root == HERE else None, "psutil", _UNSAID)


def _sibling_groups(root: Path) -> Reading[int]:
    return known(len(_topology(root, "thread_siblings_list")) or None, "/sys topology", _UNSAID)


def _packages(root: Path) -> Reading[int]:
    return known(len(_topology(root, "physical_package_id") - {"-1"}) or None, "/sys topology", _UNSAID)


def _topology(root: Path, file: str) -> set[str]:
    """The distinct contents of one topology file over all CPUs."""
    texts = (read_text(folder / file) for folder in (root / _CPU).glob("cpu[0-9]*/topology"))
    return {text for text in texts if text}


def _numa_nodes(root: Path) -> Reading[int]:
    """Nodes that have memory and no CPUs (HBM, a GPU's memory) count as well."""
    nodes = list((root / "sys/devices/system/node").glob("node[0-9]*"))
    return known(len(nodes) or None, "/sys/devices/system/node", "the system shows no NUMA nodes")


def _affinity(root: Path) -> Reading[list[int]]:
    if root != HERE:
        return _recorded_affinity(root)
    if hasattr(os, "sched_getaffinity"):
        return known(sorted(os.sched_getaffinity(0)), "sched_getaffinity", _UNSAID)
    if hasattr(psutil.Process, "cpu_affinity"):
        return known(sorted(psutil.Process().cpu_affinity()), "psutil", _UNSAID)
    return known(None, "psutil", "this system has no CPU affinity to ask for")


def _recorded_affinity(root: Path) -> Reading[list[int]]:
    """The kernel lists every CPU that could ever be plugged in as allowed, so only those online count."""
    allowed = cpu_list(fields(read_text(root / "proc/self/status")).get("Cpus_allowed_list", ""))
    online = cpu_list(read_text(root / _CPU / "online"))
    found = sorted(allowed & online if online else allowed)
    return known(found or None, "/proc/self/status", "the files of this machine do not say")


def _usable_cpus(logical: Reading[int], affinity: Reading[list[int]], quota: Reading[float]) -> Reading[float]:
    """The smaller of the CPUs that may be run on and of the quota's worth of them."""
    allowed = len(affinity.value) if affinity.value is not None else logical.value
    limits = [float(limit) for limit in (allowed, quota.value) if limit is not None]
    return known(min(limits, default=None), "affinity and cgroup", "no CPU count is known")
