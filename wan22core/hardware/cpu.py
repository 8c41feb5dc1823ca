"""The processors: what there is, and how much of it this process may use. Linux by its files, else psutil.

On Windows psutil's affinity is that of one processor group; a machine with several is asked itself.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypeVar

import psutil

from wan22core.hardware.cgroup import cgroup_quota
from wan22core.hardware.formats.cpu_files import cpuinfo_fields
from wan22core.hardware.processor_groups import ProcessorGroups, windows_groups
from wan22core.hardware.readings import known
from wan22core.hardware.system_files import HERE, cpu_list, fields, read_text
from wan22core.records import CpuProfile, Reading

_CPU = Path("sys/devices/system/cpu")
_CPUINFO = "/proc/cpuinfo"
_NODES = Path("sys/devices/system/node")
_UNSAID = "the system does not say"
_NO_NODES = "the system shows no NUMA nodes"
T = TypeVar("T")


def cpu_profile(root: Path = HERE, groups: ProcessorGroups | None = None) -> CpuProfile:
    """The processors by ``/proc`` and ``/sys`` under ``root``; psutil is asked for this machine only.

    ``groups`` are the processor groups of a Windows machine that has several; without them this machine is asked.
    """
    blocks = _cpuinfo(root)
    said = cpuinfo_fields(_CPUINFO, blocks) if blocks else {}
    groups = groups or (windows_groups() if root == HERE else None)
    affinity, quota = _affinity(root, groups), cgroup_quota(root)
    counted = groups.logical_cpus() if groups is not None else None
    logical = _or_else(said.get("logical_cpus"), counted, _psutil_count(root, logical=True))
    return CpuProfile(
        model=_or_else(said.get("model"), _platform_model(root)),
        physical_cores=_or_else(said.get("physical_cores"), _sibling_groups(root), _psutil_count(root, logical=False)),
        logical_cpus=logical,
        usable_cpus=_usable_cpus(logical, affinity, quota),
        sockets=_or_else(said.get("sockets"), _packages(root)),
        numa_nodes=_numa_nodes(root),
        numa_cpus=_numa_cpus(root),
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
    nodes = list((root / _NODES).glob("node[0-9]*"))
    return known(len(nodes) or None, f"/{_NODES}", _NO_NODES)


def _numa_cpus(root: Path) -> Reading[dict[int, list[int]]]:
    lists = (root / _NODES).glob("node[0-9]*/cpulist")
    cpus = {int(path.parent.name.removeprefix("node")): sorted(cpu_list(read_text(path))) for path in lists}
    return known(dict(sorted(cpus.items())) or None, f"/{_NODES}", _NO_NODES)


def _affinity(root: Path, groups: ProcessorGroups | None) -> Reading[list[int]]:
    if root != HERE:
        return _recorded_affinity(root)
    if hasattr(os, "sched_getaffinity"):
        return known(sorted(os.sched_getaffinity(0)), "sched_getaffinity", _UNSAID)
    if not hasattr(psutil.Process, "cpu_affinity"):
        return known(None, "psutil", "this system has no CPU affinity to ask for")
    said = sorted(psutil.Process().cpu_affinity())
    if groups is not None:
        return groups.affinity(said)
    return known(said or None, "psutil", _UNSAID)


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
