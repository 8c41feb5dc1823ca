"""Processors and memory: what there is, and how much of it this process may use. Linux by its files, else psutil."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

from wan22core.records import CpuProfile, MemoryProfile, Reading

_MIB = 2**20
_CPU = Path("sys/devices/system/cpu")
_UNLIMITED_V1 = 2**60  # cgroup v1 writes a huge number for "no limit"


def cpu_profile(root: Path = Path("/")) -> CpuProfile:
    """The processors by ``/proc`` and ``/sys`` under ``root``, by psutil where they are not there."""
    blocks = _cpuinfo(root)
    affinity = _affinity()
    quota = cgroup_quota(root)
    logical = len(blocks) or psutil.cpu_count()
    usable = len(affinity.value) if affinity.value is not None else logical
    if usable is not None and quota.value is not None:
        usable = min(float(usable), quota.value)
    return CpuProfile(
        model=_model(blocks),
        physical_cores=_physical_cores(root, blocks),
        logical_cpus=_known(logical, "/proc/cpuinfo" if blocks else "psutil", "the system does not say"),
        usable_cpus=_known(None if usable is None else float(usable), "affinity and cgroup", "no CPU count is known"),
        sockets=_sockets(root, blocks),
        numa_nodes=_numa_nodes(root),
        affinity=affinity,
        cgroup_quota_cpus=quota,
    )


def memory_profile(root: Path = Path("/")) -> MemoryProfile:
    """Main memory by psutil, its cgroup limit by the files under ``root``."""
    memory = psutil.virtual_memory()
    return MemoryProfile(
        total_mib=Reading[int](value=memory.total // _MIB, source="psutil"),
        available_mib=Reading[int](value=memory.available // _MIB, source="psutil"),
        cgroup_limit_mib=cgroup_memory_limit(root),
    )


def cgroup_quota(root: Path = Path("/")) -> Reading[float]:
    """CPUs that the tightest quota of the own cgroup and those above it allows."""
    found = []
    for version, folder in _cgroup_folders(root, "cpu"):
        if version == 2:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.strip().isdigit() and period.strip().isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    if not found:
        return Reading[float].missing("cgroup", "no quota is set")
    return Reading[float](value=min(found), source="cgroup")


def cgroup_memory_limit(root: Path = Path("/")) -> Reading[int]:
    """MiB that the tightest limit of the own cgroup and those above it allows."""
    found = []
    for version, folder in _cgroup_folders(root, "memory"):
        text = _read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).strip()
        if text.isdigit() and int(text) < _UNLIMITED_V1:
            found.append(int(text) // _MIB)
    if not found:
        return Reading[int].missing("cgroup", "no limit is set")
    return Reading[int](value=min(found), source="cgroup")


def _cgroup_folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """The folders that govern this process, own first; a container may show its own folder as the root."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, base = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, base = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        folder = base / path.lstrip("/")
        yield from ((version, each) for each in (folder, *folder.parents) if each.is_relative_to(base))


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    blocks = []
    for block in _read(root / "proc/cpuinfo").split("\n\n"):
        fields = dict(_pair(line) for line in block.splitlines() if ":" in line)
        if "processor" in fields:
            blocks.append(fields)
    return blocks


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _model(blocks: list[dict[str, str]]) -> Reading[str]:
    for field in ("model name", "Model", "cpu model", "Hardware"):
        if blocks and blocks[0].get(field):
            return Reading[str](value=blocks[0][field], source="/proc/cpuinfo")
    return _known(platform.processor() or None, "platform", "the system does not name it")


def _physical_cores(root: Path, blocks: list[dict[str, str]]) -> Reading[int]:
    cores = {(block["physical id"], block["core id"]) for block in blocks if {"physical id", "core id"} <= block.keys()}
    if cores:
        return Reading[int](value=len(cores), source="/proc/cpuinfo")
    siblings = {text for each in _topologies(root) if (text := _read(each / "thread_siblings_list").strip())}
    if siblings:
        return Reading[int](value=len(siblings), source="/sys topology")
    return _known(psutil.cpu_count(logical=False), "psutil", "the system does not say")


def _sockets(root: Path, blocks: list[dict[str, str]]) -> Reading[int]:
    packages = {block["physical id"] for block in blocks if "physical id" in block}
    if packages:
        return Reading[int](value=len(packages), source="/proc/cpuinfo")
    packages = {
        text for each in _topologies(root) if (text := _read(each / "physical_package_id").strip()) not in ("", "-1")
    }
    return _known(len(packages) or None, "/sys topology", "the system does not say")


def _topologies(root: Path) -> list[Path]:
    return sorted((root / _CPU).glob("cpu[0-9]*/topology"))


def _numa_nodes(root: Path) -> Reading[int]:
    """Nodes with memory but without CPUs count as well."""
    nodes = list((root / "sys/devices/system/node").glob("node[0-9]*"))
    return _known(len(nodes) or None, "/sys/devices/system/node", "the system shows no NUMA nodes")


def _affinity() -> Reading[list[int]]:
    if not hasattr(os, "sched_getaffinity"):
        return Reading[list[int]].missing("sched_getaffinity", "this system has no CPU affinity to ask for")
    return Reading[list[int]](value=sorted(os.sched_getaffinity(0)), source="sched_getaffinity")


def _known(value: object, source: str, reason: str) -> Reading:  # type: ignore[type-arg]
    return Reading(value=value, source=source) if value is not None else Reading.missing(source, reason)


def _read(path: Path) -> str:
    """The file's text; a file that is not there says as much as an empty one."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
