"""Synthetic machines: the files of ``/proc`` and ``/sys`` in a folder, and a driver behind the real NVML binding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from wan22core.hardware.formats.facts import Facts, Fields
from wan22core.hardware.merge import machine_of
from wan22core.records import CpuProfile, Reading

MIB = 2**20
UUID = "GPU-0a1b2c3d-0000-1111-2222-333344445555"


def write(root: Path, files: dict[str, str]) -> Path:
    """Writes ``files`` by their path under ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cpuinfo(places: list[tuple[int, int]], model: str = "Example CPU 9000") -> str:
    """``/proc/cpuinfo`` of one logical CPU for each (physical id, core id); ``cpu cores`` is a host's misleading 64."""
    blocks = (
        f"processor\t: {number}\nmodel name\t: {model}\nphysical id\t: {socket}\ncore id\t\t: {core}\ncpu cores\t: 64\n"
        for number, (socket, core) in enumerate(places)
    )
    return "\n".join(blocks)


def processors(cores: int, nodes: int = 1) -> CpuProfile:
    """A CPU of two threads a core of which all cores may be used; its nodes have the same number of them."""
    counts = {"physical_cores": cores, "logical_cpus": 2 * cores, "affinity_cpus": 2 * cores, "numa_nodes": nodes}
    fields: Fields = {name: Reading[int](value=count, source="test") for name, count in counts.items()}
    share = cores // nodes
    cpus = {
        n: [*range(n * share, (n + 1) * share), *range(cores + n * share, cores + (n + 1) * share)]
        for n in range(nodes)
    }
    fields["numa_cpus"] = Reading[dict[int, list[int]]](value=cpus, source="test")
    return machine_of([Facts(cpu=fields)]).cpu


def answers() -> dict[str, Any]:
    """What a healthy card answers, by NVML function."""
    return {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetHandleByUUID": "handle",
        "nvmlDeviceGetUUID": UUID.encode(),  # older bindings give bytes
        "nvmlDeviceGetName": "NVIDIA Example",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=16376 * MIB, used=1024 * MIB),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=41),
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=41, usedGpuMemory=512 * MIB)],
        "nvmlDeviceGetPowerUsage": 285_500,
        "nvmlDeviceGetTotalEnergyConsumption": 1_500,
        "nvmlDeviceGetTemperature": 66,
        "nvmlDeviceGetMarginTemperature": 18,
        "nvmlDeviceGetTemperatureThreshold": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
        "nvmlDeviceGetClockInfo": 2505,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
        "nvmlDeviceGetCudaComputeCapability": (8, 9),
        "nvmlSystemGetDriverVersion": "580.95.05",
        "nvmlSystemGetCudaDriverVersion_v2": 13_010,
        "nvmlDeviceGetEnforcedPowerLimit": 320_000,
        "nvmlDeviceGetEccMode": [0, 0],
        "nvmlDeviceGetNumGpuCores": 9728,
        "nvmlDeviceGetMaxClockInfo": 2505,
        "nvmlDeviceGetMemoryBusWidth": 256,
        "nvmlDeviceGetMigMode": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
        "nvmlDeviceGetMaxPcieLinkGeneration": 4,
        "nvmlDeviceGetMaxPcieLinkWidth": 16,
        "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"0000FFFF:FF:1F.7"),  # no machine has it
    }


def _function(answer: Any) -> Callable[..., Any]:
    def ask(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def install(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """Puts a driver's answers behind the real binding; an exception as an answer is raised."""
    assert changed.keys() <= answers().keys()
    for name, answer in (answers() | changed).items():
        monkeypatch.setattr(pynvml, name, _function(answer))
