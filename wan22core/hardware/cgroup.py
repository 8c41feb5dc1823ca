"""What the control groups of this process leave it: the tightest limit of its own group and of those above it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wan22core.hardware.readings import known
from wan22core.hardware.system_files import HERE, read_text
from wan22core.records import Reading

_MIB = 2**20
_SOURCE = "cgroup"
_UNLIMITED_V1_BYTES = 2**60  # version 1 has no word for "no limit": it writes a number that no machine has


def cgroup_quota(root: Path = HERE) -> Reading[float]:
    """CPUs by ``cpu.max`` (version 2) or by CFS quota and period (version 1)."""
    quotas = [_quota_cpus(version, folder) for version, folder in _folders(root, "cpu")]
    tightest = min((quota for quota in quotas if quota is not None), default=None)
    return known(tightest, _SOURCE, "no quota set" if quotas else "no quota set: this system shows no cgroups")


def cgroup_memory_limit(root: Path = HERE) -> Reading[int]:
    """MiB by ``memory.max`` (version 2) or ``memory.limit_in_bytes`` (version 1)."""
    limits = [_limit_mib(version, folder) for version, folder in _folders(root, "memory")]
    tightest = min((limit for limit in limits if limit is not None), default=None)
    return known(tightest, _SOURCE, "no limit set" if limits else "no limit set: this system shows no cgroups")


def cgroup_memory_left(root: Path = HERE) -> Reading[int]:
    """MiB below the limit of the group that leaves least; pages of files that it can drop at once are no use of it.

    None where no group has a limit, and where one has and does not show its use.
    """
    limited = [
        (limit, _used_mib(version, folder))
        for version, folder in _folders(root, "memory")
        if (limit := _limit_mib(version, folder)) is not None
    ]
    left = [max(0, limit - used) for limit, used in limited if used is not None]
    if len(left) < len(limited):
        return known(None, _SOURCE, "a control group has a limit and does not show its use")
    return known(min(left, default=None), _SOURCE, "no limit set")


def _quota_cpus(version: int, folder: Path) -> float | None:
    if version == 2:
        quota, _, period = read_text(folder / "cpu.max").partition(" ")
    else:
        quota, period = read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _limit_mib(version: int, folder: Path) -> int | None:
    text = read_text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
    return int(text) // _MIB if text.isdigit() and int(text) < _UNLIMITED_V1_BYTES else None


def _used_mib(version: int, folder: Path) -> int | None:
    used = read_text(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
    if not used.isdigit():
        return None
    lines = (line.partition(" ") for line in read_text(folder / "memory.stat").splitlines())
    wanted = "inactive_file" if version == 2 else "total_inactive_file"
    droppable = next((int(value) for name, _, value in lines if name == wanted and value.isdigit()), 0)
    return max(0, int(used) - droppable) // _MIB


def _folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of each group that governs this process, its own first.

    ``/proc/self/cgroup`` may name a path of the host that a container does not see: there the group's own files stand
    at the mount's root, which is the last folder of the walk.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            version, base = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, base = 1, _v1_mount(root, controller, controllers)
        else:
            continue
        folder = base / path.lstrip("/")
        yield from ((version, each) for each in (folder, *folder.parents) if each.is_relative_to(base))


def _v1_mount(root: Path, controller: str, controllers: str) -> Path:
    """Controllers mounted together (``cpu,cpuacct``) have a link of each single name on most systems, not on all."""
    together, single = root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller
    return together if together.is_dir() else single
