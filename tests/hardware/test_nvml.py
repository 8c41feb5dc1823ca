"""NVML through its real binding, with a driver's answers behind it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from tests.hardware.machines import MIB, UUID, install, write
from wan22core.errors import DeviceError
from wan22core.hardware import nvml
from wan22core.hardware.nvml import GpuReading, full_uuid, open_gpu

NOT_SUPPORTED = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_a_reading_is_in_the_units_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes become MiB, milliwatts watts, millijoules joules."""
    install(monkeypatch)
    gpu = open_gpu(UUID)
    assert gpu.read(41) == GpuReading(
        gpu_process_mib=512.0,
        gpu_device_mib=1024.0,
        gpu_utilization_percent=97.0,
        gpu_memory_utilization_percent=41.0,
        gpu_temperature_c=66.0,
        gpu_temperature_margin_c=18.0,
        gpu_power_w=285.5,
        gpu_sm_mhz=2505.0,
        gpu_memory_mhz=2505.0,
        gpu_throttle_reasons=4,
        gpu_energy_j=1.5,
        processes=(41,),
    )
    assert gpu.reasons == {}


@pytest.mark.parametrize(
    ("question", "fields"),
    [
        ("nvmlDeviceGetMemoryInfo", ["gpu_device_mib"]),
        ("nvmlDeviceGetUtilizationRates", ["gpu_utilization_percent", "gpu_memory_utilization_percent"]),
        ("nvmlDeviceGetComputeRunningProcesses", ["gpu_process_mib", "processes"]),
        ("nvmlDeviceGetPowerUsage", ["gpu_power_w"]),
        ("nvmlDeviceGetTotalEnergyConsumption", ["gpu_energy_j"]),
        ("nvmlDeviceGetTemperature", ["gpu_temperature_c"]),
        ("nvmlDeviceGetMarginTemperature", ["gpu_temperature_margin_c"]),
        ("nvmlDeviceGetClockInfo", ["gpu_sm_mhz", "gpu_memory_mhz"]),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", ["gpu_throttle_reasons"]),
    ],
)
def test_a_question_without_an_answer_costs_its_own_fields_alone(
    monkeypatch: pytest.MonkeyPatch, question: str, fields: list[str]
) -> None:
    """They are None with NVML's words; every other field keeps its value."""
    install(monkeypatch, **{question: NOT_SUPPORTED})
    gpu = open_gpu(UUID)
    reading = gpu.read(41)
    assert sorted(name for name, value in reading.model_dump().items() if value is None) == sorted(fields)
    assert gpu.reasons == {name: "NVML: Not Supported" for name in fields if name != "processes"}


@pytest.mark.parametrize(
    ("listed", "pid", "reason"),
    [
        ([SimpleNamespace(pid=41, usedGpuMemory=None)], 41, "NVML gives no memory per process here"),
        ([SimpleNamespace(pid=9041, usedGpuMemory=5)], 41, "NVML does not list the process"),
        ([], 41, "NVML does not list the process"),
        ([SimpleNamespace(pid=41, usedGpuMemory=5)], None, "no process was watched"),
    ],
)
def test_no_memory_of_the_process_is_a_reason_and_no_zero(
    monkeypatch: pytest.MonkeyPatch, listed: list[Any], pid: int | None, reason: str
) -> None:
    """Windows gives no figure, a container other numbers, an idle worker holds no context."""
    install(monkeypatch, nvmlDeviceGetComputeRunningProcesses=listed)
    gpu = open_gpu(UUID)
    assert gpu.read(pid).gpu_process_mib is None
    assert gpu.reasons["gpu_process_mib"].startswith(reason)


@pytest.mark.parametrize(
    ("thresholds", "margin_c", "asked"),
    [
        ({pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX: 93, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: 95}, 27.0, 1),
        ({pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: 101}, 33.0, 2),
        ({}, None, 2),
    ],
    ids=["ampere", "pascal", "nothing"],
)
def test_without_the_drivers_margin_it_is_what_a_threshold_leaves(
    monkeypatch: pytest.MonkeyPatch, thresholds: dict[int, int], margin_c: float | None, asked: int
) -> None:
    """At 66 C below the highest operating temperature, or below the slowdown less 2 C; it is asked for once."""
    install(monkeypatch, nvmlDeviceGetMarginTemperature=NOT_SUPPORTED)
    questions = []

    def threshold(handle: str, kind: int) -> int:
        questions.append(kind)
        if kind not in thresholds:
            raise NOT_SUPPORTED
        return thresholds[kind]

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperatureThreshold", threshold)
    gpu = open_gpu(UUID)
    assert [gpu.read(41).gpu_temperature_margin_c for _ in range(3)] == [margin_c] * 3
    assert len(questions) == asked
    assert gpu.reasons == ({} if margin_c is not None else {"gpu_temperature_margin_c": "NVML: Not Supported"})


def test_a_driver_without_the_question_for_a_margin_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The binding knows the function, an older library does not."""
    install(monkeypatch, nvmlDeviceGetMarginTemperature=pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    gpu = open_gpu(UUID)
    assert gpu.read(41).gpu_temperature_margin_c is None
    assert gpu.reasons == {"gpu_temperature_margin_c": "NVML: Function Not Found"}


def test_compute_processes_alone_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stands in the graphics list as well is not added up; that list is never asked."""
    install(monkeypatch)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetGraphicsRunningProcesses")
    assert open_gpu(UUID).read(41).gpu_process_mib == 512 * MIB / MIB


def test_a_gpu_that_can_not_be_opened_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library and an unknown uuid are both a DeviceError with NVML's own words, and the library is let go."""
    install(monkeypatch, nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    with pytest.raises(DeviceError, match="NVML Shared Library Not Found"):
        open_gpu(UUID)
    install(monkeypatch, nvmlDeviceGetHandleByUUID=pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND))
    shut = []
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: shut.append(True))
    with pytest.raises(DeviceError, match="Not Found") as caught:
        open_gpu(UUID)
    assert shut == [True]
    assert "nvidia-smi" in caught.value.next_action


def test_closing_twice_lets_the_library_go_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts its users, so a second release would be somebody else's."""
    install(monkeypatch)
    shut = []
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: shut.append(True))
    gpu = open_gpu(UUID)
    gpu.close()
    gpu.close()
    assert shut == [True]


@pytest.mark.parametrize("given", [UUID, UUID.removeprefix("GPU-")])
def test_torchs_way_to_write_a_uuid_is_understood(given: str) -> None:
    assert full_uuid(given) == UUID


@pytest.mark.gpu
def test_the_first_gpu_of_this_machine_answers() -> None:
    """On a real card the use of the device is between nothing and all of it."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVML here: {error}")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    gpu = open_gpu(pynvml.nvmlDeviceGetUUID(handle))
    used = gpu.read(None).gpu_device_mib
    assert used is not None
    assert 0 < used <= pynvml.nvmlDeviceGetMemoryInfo(handle).total / MIB
    gpu.close()
    pynvml.nvmlShutdown()


@pytest.mark.parametrize(
    ("text", "node", "reason"),
    [("1\n", 1, None), ("-1\n", None, "it says '-1'"), (None, None, "it says 'nothing'")],
)
def test_the_node_of_a_gpu_is_what_the_system_says_of_its_slot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, node: int | None, reason: str | None
) -> None:
    """NVML writes the address with eight digits and in capitals, Linux with four; -1 is no node."""
    install(monkeypatch, nvmlDeviceGetPciInfo=SimpleNamespace(busId=b"00000000:C1:00.0"))
    monkeypatch.setattr(nvml, "HERE", tmp_path)
    if text is not None:
        write(tmp_path, {"sys/bus/pci/devices/0000:c1:00.0/numa_node": text})
    found = nvml.list_gpus(None)[0][0].numa_node
    assert (found.value, found.reason) == (node, reason)
