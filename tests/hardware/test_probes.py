"""Probes of other packages, by a real entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardware.machines import UUID, install, write
from wan22core.errors import DeviceError
from wan22core.hardware.nvml import GpuReader
from wan22core.hardware.probes import open_probe
from wan22core.telemetry.sampler import Sampler

PLUGIN = """
from wan22core.hardware.nvml import GpuReading

class Probe:
    reasons = {"gpu_power_w": "this card has no meter"}

    def read(self, pid):
        return GpuReading(gpu_device_mib=4096.0, gpu_temperature_c=55.0)

    def close(self):
        pass

def probe(uuid):
    return Probe() if uuid == "GPU-theirs" else None

def fails(uuid):
    raise RuntimeError("no bus")

def strange(uuid):
    return "a probe"
"""


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *points: str) -> None:
    files = {
        "probe_plugin.py": PLUGIN,
        "probe_plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: probe-plugin\nVersion: 1.0\n",
        "probe_plugin-1.0.dist-info/entry_points.txt": "\n".join(["[wan22.gpu_probes]", *points, ""]),
    }
    write(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)


def test_another_package_reads_the_gpu_that_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler's samples are its readings; NVML stays for all other GPUs."""
    install(monkeypatch)
    installed(tmp_path, monkeypatch, "theirs = probe_plugin:probe")
    sampler = Sampler(interval_s=1.0, origin_s=0.0, gpu=open_probe("GPU-theirs"))
    sampler.sample_now()
    (sample,) = sampler.samples
    assert (sample.gpu_device_mib, sample.gpu_temperature_c, sample.gpu_power_w) == (4096.0, 55.0, None)
    assert sampler.telemetry().reasons["gpu_power_w"] == "this card has no meter"
    assert isinstance(open_probe(UUID), GpuReader)


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("bad = probe_plugin:fails", "RuntimeError: no bus"),
        ("bad = probe_plugin:strange", "it gives str"),
        ("bad = no_such_module:probe", "ModuleNotFoundError"),
    ],
)
def test_a_probe_that_can_t_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, words: str
) -> None:
    """A run that nobody watches must not pass for one that is watched."""
    install(monkeypatch)
    installed(tmp_path, monkeypatch, point)
    with pytest.raises(DeviceError, match=f"GPU probe bad = .*{words}"):
        open_probe(UUID)
