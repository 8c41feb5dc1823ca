"""Processors, control groups and memory of machines replayed from a folder."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tests.hardware.machines import cpuinfo, write
from wan22core.hardware.cgroup import cgroup_memory_limit, cgroup_quota
from wan22core.hardware.cpu import cpu_profile
from wan22core.hardware.memory import disk_profile, memory_headroom, memory_profile
from wan22core.hardware.system_files import cpu_list

TWO_SOCKETS = [(socket, core) for _thread in range(2) for socket in range(2) for core in (0, 1, 4)]


def test_cores_and_sockets_are_those_that_are_seen(tmp_path: Path) -> None:
    """Two sockets of three cores with two threads each, although ``cpu cores`` speaks of a host with 64."""
    profile = cpu_profile(write(tmp_path, {"proc/cpuinfo": cpuinfo(TWO_SOCKETS, "Example  CPU   9000")}))
    assert profile.model.value == "Example CPU 9000"
    assert profile.logical_cpus.value == 12
    assert profile.physical_cores.value == 6
    assert profile.sockets.value == 2
    assert profile.usable_cpus.value == 12.0


def test_the_topology_of_sys_serves_where_cpuinfo_names_no_cores(tmp_path: Path) -> None:
    """An ARM machine: two cores with two threads, in a package that the system does not number."""
    files = {"proc/cpuinfo": "".join(f"processor\t: {n}\nBogoMIPS\t: 50.00\n\n" for n in range(4)) + "Model\t: Board\n"}
    for number in range(4):
        folder = f"sys/devices/system/cpu/cpu{number}/topology"
        files[f"{folder}/thread_siblings_list"] = "0,2\n" if number % 2 == 0 else "1,3\n"
        files[f"{folder}/physical_package_id"] = "-1\n"
    profile = cpu_profile(write(tmp_path, files))
    assert profile.logical_cpus.value == 4
    assert (profile.physical_cores.value, profile.physical_cores.source) == (2, "/sys topology")
    assert (profile.sockets.value, profile.sockets.reason) == (None, "the system does not say")


def test_numa_nodes_without_cpus_count(tmp_path: Path) -> None:
    """Two nodes with CPUs and one with memory only are three."""
    nodes = {f"sys/devices/system/node/node{n}/cpulist": text for n, text in enumerate(["0-1\n", "2-3\n", "\n"])}
    profile = cpu_profile(write(tmp_path, nodes))
    assert profile.numa_nodes.value == 3
    assert profile.numa_cpus.value == {0: [0, 1], 1: [2, 3], 2: []}


def test_a_replayed_machine_is_never_filled_up_from_this_one(tmp_path: Path) -> None:
    """An empty folder gives nothing but reasons."""
    profile = cpu_profile(tmp_path).model_dump()
    assert {name: reading["value"] for name, reading in profile.items()} == dict.fromkeys(profile)
    memory = memory_profile(tmp_path)
    assert (memory.total_mib.value, memory.available_mib.value) == (None, None)
    assert memory.limit_mib.reason == "no limit set: this system shows no cgroups"


def test_affinity_counts_only_cpus_that_are_online(tmp_path: Path) -> None:
    """The kernel allows every CPU that could be plugged in; 0-1 and 3 are there and allowed."""
    files = {
        "proc/cpuinfo": cpuinfo([(0, core) for core in range(4)]),
        "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-1,3-127\n",
        "sys/devices/system/cpu/online": "0-3\n",
    }
    profile = cpu_profile(write(tmp_path, files))
    assert profile.affinity.value == [0, 1, 3]
    assert profile.usable_cpus.value == 3.0


def test_the_tightest_quota_of_the_own_group_and_those_above_rules_in_version_2(tmp_path: Path) -> None:
    """The parent's one and a half CPUs are less than the own three."""
    files = {
        "proc/self/cgroup": "0::/pod/box\n",
        "proc/cpuinfo": cpuinfo([(0, core) for core in range(4)]),
        "sys/fs/cgroup/pod/box/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "sys/fs/cgroup/pod/memory.max": "536870912\n",
    }
    profile = cpu_profile(write(tmp_path, files))
    assert profile.cgroup_quota_cpus.value == 1.5
    assert profile.usable_cpus.value == 1.5
    assert cgroup_memory_limit(tmp_path).value == 512


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quota_and_limit_by_version_1(tmp_path: Path, mount: str) -> None:
    """CFS quota by period, with controllers that are mounted together under either name; the memory's own limit."""
    files = {
        "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/\n",
        f"sys/fs/cgroup/{mount}/box/cpu.cfs_quota_us": "250000\n",
        f"sys/fs/cgroup/{mount}/box/cpu.cfs_period_us": "100000\n",
        f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": "-1\n",
        f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1073741824\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    write(tmp_path, files)
    assert cgroup_quota(tmp_path).value == 2.5
    assert cgroup_memory_limit(tmp_path).value == 1024


def test_a_container_finds_its_own_files_at_the_root_of_the_mount(tmp_path: Path) -> None:
    """The path that the kernel names is the host's and is not there."""
    files = {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "1500000 100000\n"}
    assert cgroup_quota(write(tmp_path, files)).value == 15.0


@pytest.mark.parametrize("group", ["0::/\n", "1:cpu:/\n2:memory:/\n"])
def test_no_limit_is_a_reason_and_no_number(tmp_path: Path, group: str) -> None:
    """Version 2 says ``max``, version 1 says -1 and a number that no machine has."""
    files = {
        "proc/self/cgroup": group,
        "sys/fs/cgroup/cpu.max": "max 100000\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    write(tmp_path, files)
    assert (cgroup_quota(tmp_path).value, cgroup_quota(tmp_path).reason) == (None, "no quota set")
    assert (cgroup_memory_limit(tmp_path).value, cgroup_memory_limit(tmp_path).reason) == (None, "no limit set")


@pytest.mark.parametrize(
    ("files", "left_mib", "reason"),
    [
        ({}, 8192, None),
        ({"sys/fs/cgroup/memory.max": 2048, "sys/fs/cgroup/memory.current": 1536}, 512, None),
        ({"sys/fs/cgroup/memory.max": 65_536, "sys/fs/cgroup/memory.current": 1536}, 8192, None),
        ({"sys/fs/cgroup/memory.max": 2048, "sys/fs/cgroup/memory.current": 2048, "cached": 1024}, 1024, None),
        ({"sys/fs/cgroup/memory.max": 2048}, None, "a control group has a limit and does not show its use"),
    ],
)
def test_what_is_left_of_memory_is_what_the_groups_leave(
    files: dict[str, int], left_mib: int | None, reason: str | None, tmp_path: Path
) -> None:
    """8 GiB are available; pages of files that a group can drop are no use of its limit."""
    written = {name: f"{mib * 2**20}\n" for name, mib in files.items() if name != "cached"}
    written["sys/fs/cgroup/memory.stat"] = f"anon 1\ninactive_file {files.get('cached', 0) * 2**20}\n"
    written |= {"proc/self/cgroup": "0::/\n", "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"}
    left = memory_headroom(write(tmp_path, written))
    assert (left.value, left.reason) == (left_mib, reason)


def test_what_is_left_by_version_1(tmp_path: Path) -> None:
    """The group above leaves less."""
    memory = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:memory:/box\n",
        "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
        f"{memory}/box/memory.limit_in_bytes": f"{2048 * 2**20}\n",
        f"{memory}/box/memory.usage_in_bytes": f"{100 * 2**20}\n",
        f"{memory}/memory.limit_in_bytes": f"{1024 * 2**20}\n",
        f"{memory}/memory.usage_in_bytes": f"{1000 * 2**20}\n",
        f"{memory}/memory.stat": f"total_inactive_file {76 * 2**20}\n",
    }
    assert memory_headroom(write(tmp_path, files)).value == 100


def test_memory_is_read_in_kibibytes(tmp_path: Path) -> None:
    """``kB`` in /proc/meminfo means KiB."""
    memory = memory_profile(write(tmp_path, {"proc/meminfo": "MemTotal:  2097152 kB\nMemAvailable:  1048576 kB\n"}))
    assert (memory.total_mib.value, memory.available_mib.value) == (2048, 1024)


@pytest.mark.parametrize(("text", "expected"), [("0-3,8", {0, 1, 2, 3, 8}), ("5\n", {5}), ("", set()), ("\n", set())])
def test_a_kernel_list_names_its_numbers(text: str, expected: set[int]) -> None:
    assert cpu_list(text) == expected


def test_this_machine_agrees_with_its_own_system(tmp_path: Path) -> None:
    """Independent interfaces give the same counts."""
    profile = cpu_profile()
    assert profile.logical_cpus.value == psutil.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        assert profile.affinity.value == sorted(os.sched_getaffinity(0))
    assert memory_profile().total_mib.value == psutil.virtual_memory().total // 2**20
    assert disk_profile(tmp_path).total_mib.value == psutil.disk_usage(str(tmp_path)).total // 2**20


def test_a_system_without_linux_files_falls_back_to_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows have neither /proc nor an affinity call; what psutil lacks is missing with a reason."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 10 if logical else 5)
    profile = cpu_profile()
    assert (profile.logical_cpus.value, profile.physical_cores.value, profile.usable_cpus.value) == (10, 5, 10.0)
    assert profile.affinity.reason == "this system has no CPU affinity to ask for"
    assert profile.numa_nodes.reason == "the system shows no NUMA nodes"
    assert profile.cgroup_quota_cpus.reason == "no quota set: this system shows no cgroups"
    assert memory_profile().total_mib.source == "psutil"


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """It is the disk that the folder would be made on."""
    profile = disk_profile(tmp_path / "not" / "yet")
    assert profile.path == str(tmp_path / "not" / "yet")
    assert profile.total_mib.value == disk_profile(tmp_path).total_mib.value
