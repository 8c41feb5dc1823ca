"""A snapshot of this machine: the dumps that another machine reads with ``--from``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from wan22core.files import write_text
from wan22core.hardware.cgroup import cgroup_memory_limit, cgroup_quota
from wan22core.hardware.nvidia_smi import CSV, XML, run_nvidia_smi
from wan22core.hardware.system_files import HERE, read_text

_FILES = {
    "proc-cpuinfo.txt": "proc/cpuinfo",
    "proc-meminfo.txt": "proc/meminfo",
    "sys-cpu-online.txt": "sys/devices/system/cpu/online",
    "sys-node-online.txt": "sys/devices/system/node/online",
}
_COMMANDS = {"lscpu.json": ("lscpu", "-J"), "numactl-H.txt": ("numactl", "-H"), "free.txt": ("free",)}
_NVIDIA_SMI: dict[str, tuple[str, ...]] = {
    "nvidia-smi-q-x.xml": XML,
    "nvidia-smi-query-gpu.csv": CSV,
    "nvidia-smi.txt": (),
    "nvidia-smi-topo-m.txt": ("topo", "-m"),
}
_ANSWER_S = 10.0
_PERIOD_US = 100_000


def capture(folder: Path) -> tuple[list[str], list[str]]:
    """Writes what can be had into ``folder``; returns the names of the files, and a sentence for each that is missing.

    nvidia-smi's output holds the serial number and uuid of the GPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {name: read_text(HERE / path) for name, path in _FILES.items()}
    missing: list[str] = []
    for name, command in _COMMANDS.items():
        texts[name] = _output_of(command)
    for name, arguments in _NVIDIA_SMI.items():
        text, reason = run_nvidia_smi(arguments)
        texts[name] = text or ""
        if text is None:
            missing.append(f"{name}: {reason}")
    texts |= _limits()
    for name, text in texts.items():
        if text:
            write_text(folder / name, text + "\n")
    said = {line.partition(":")[0] for line in missing}
    missing += [
        f"{name}: this system does not have it" for name, text in texts.items() if not text and name not in said
    ]
    return [name for name, text in texts.items() if text], missing


def _output_of(command: tuple[str, ...]) -> str:
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _limits() -> dict[str, str]:
    """The tightest limits of this process in the form of version 2, whatever version set them."""
    quota, limit = cgroup_quota().value, cgroup_memory_limit().value
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "nproc.txt": "" if cpus is None else str(cpus),
        "cgroup-cpu.max.txt": "" if quota is None else f"{round(quota * _PERIOD_US)} {_PERIOD_US}",
        "cgroup-memory.max.txt": "" if limit is None else str(limit * 2**20),
    }
