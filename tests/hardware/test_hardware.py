"""The profile of this machine, and of synthetic ones in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from wan22core.hardware.cgroup import cgroup_memory_limit, cgroup_quota
from wan22core.hardware.cpu import cpu_profile
from wan22core.hardware.detect import detect
from wan22core.hardware.nvml import list_gpus
from wan22core.hardware.software import commit_of
from wan22core.records import Reading, TorchDevice, TorchFacts

HASH = "0123456789abcdef0123456789abcdef01234567"


def root_of(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def cpuinfo(sockets: int, cores: int, threads: int) -> str:
    blocks = [
        f"processor\t: {(socket * cores + core) * threads + thread}\nmodel name\t: Synthetic 9000\n"
        f"physical id\t: {socket}\ncore id\t\t: {core}\n"
        for socket in range(sockets)
        for core in range(cores)
        for thread in range(threads)
    ]
    return "\n".join(blocks)


def test_this_machine_has_what_psutil_says() -> None:
    """No figure is invented: a missing one has its reason, the rest agrees with the system."""
    profile = detect(Path("/no/such/folder"))
    assert profile.cpu.logical_cpus.value == psutil.cpu_count()
    assert profile.memory.total_mib.value == psutil.virtual_memory().total // 2**20
    assert profile.disk.total_mib.value is not None
    assert profile.cpu.affinity.value == sorted(os.sched_getaffinity(0))
    assert profile.software.packages["torch"].source == "package metadata"
    assert (profile.gpus == []) is (profile.gpu_reason is not None)


def test_two_sockets_four_nodes(tmp_path: Path) -> None:
    """Cores are told from threads, sockets counted; a node without CPUs is a node."""
    files = {"proc/cpuinfo": cpuinfo(sockets=2, cores=4, threads=2)}
    files |= {f"sys/devices/system/node/node{number}/cpulist": "" for number in range(4)}
    cpu = cpu_profile(root_of(tmp_path, files))
    figures = (cpu.physical_cores, cpu.logical_cpus, cpu.sockets, cpu.numa_nodes)
    assert [reading.value for reading in figures] == [8, 16, 2, 4]
    assert cpu.model.value == "Synthetic 9000"


def test_without_core_ids_the_topology_says(tmp_path: Path) -> None:
    """As on 64-bit Arm, whose cpuinfo has no core ids."""
    files = {"proc/cpuinfo": "processor\t: 0\n\nprocessor\t: 1\n"}
    for number in (0, 1):
        folder = f"sys/devices/system/cpu/cpu{number}/topology"
        files |= {f"{folder}/thread_siblings_list": f"{number}\n", f"{folder}/physical_package_id": "0\n"}
    cpu = cpu_profile(root_of(tmp_path, files))
    assert [cpu.physical_cores.value, cpu.sockets.value, cpu.numa_nodes.value] == [2, 1, None]


@pytest.mark.parametrize(
    ("files", "cpus", "mib"),
    [
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/b/memory.max": "1073741824\n",
                "sys/fs/cgroup/a/memory.max": "max\n",
            },
            1.5,
            1024,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/c\n2:memory:/c\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/c/memory.limit_in_bytes": "9223372036854771712\n",
            },
            2.0,
            None,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None, None),
        ({}, None, None),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], cpus: float | None, mib: int | None) -> None:
    """Of the own group and those above it; "max" and v1's huge number are no limit."""
    root = root_of(tmp_path, files)
    assert cgroup_quota(root).value == cpus
    assert cgroup_memory_limit(root).value == mib
    assert cpus is not None or "no quota" in (cgroup_quota(root).reason or "")


def test_gpus_that_only_torch_sees_are_listed() -> None:
    """Where NVML does not answer, torch's word is taken, with its source."""
    _, reason = list_gpus(None)
    if reason is None:
        pytest.skip("NVML sees a GPU here")
    device = TorchDevice(index=0, name="Synthetic", uuid="abc", total_mib=16_000, compute_capability="8.9")
    facts = TorchFacts(version="2.13.0", cuda_version="13.0", devices=[device], reason=None)
    profile = detect(Path("/"), facts)
    assert (profile.gpu_reason, len(profile.gpus)) == (None, 1)
    gpu = profile.gpus[0]
    assert (gpu.name.value, gpu.name.source, gpu.torch_index.value) == ("Synthetic", "torch", 0)
    assert gpu.power_limit_w.value is None
    none = detect(Path("/"), TorchFacts(version="2.13.0", cuda_version=None, devices=[], reason="built without CUDA"))
    assert none.gpu_reason is not None
    assert "built without CUDA" in none.gpu_reason


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({".git/HEAD": f"{HASH}\n"}, HASH),
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{HASH}\n"}, HASH),
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/packed-refs": f"# pack\n{HASH} refs/heads/main\n"}, HASH),
        ({".git": "gitdir: real\n", "real/HEAD": f"{HASH}\n"}, HASH),
        ({".git/HEAD": "ref: refs/heads/none\n"}, None),
        ({}, None),
    ],
)
def test_the_commit_is_read_from_gits_files(tmp_path: Path, files: dict[str, str], found: str | None) -> None:
    """Detached, on a branch, packed, in a worktree; else the reason."""
    assert commit_of(root_of(tmp_path, files)).value == found


@pytest.mark.parametrize("values", [{"value": None}, {"value": 1, "reason": "none"}])
def test_a_reading_has_a_value_or_a_reason(values: dict[str, Any]) -> None:
    """Never both, never neither."""
    with pytest.raises(ValidationError, match="either a value or a reason"):
        Reading[int](source="test", **values)
