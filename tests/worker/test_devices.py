"""The device that a spec means, on machines with several unlike GPUs; rates of copies where there is none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.hardware.test_rates import DAY
from tests.planning.test_host_rates import copies
from tests.worker.test_worker import faulty_spec
from wan22core.errors import IncompatibleHardwareError
from wan22core.hardware.manual import prefer
from wan22core.hardware.rates import keep_rates, load_rates
from wan22core.records import TorchDevice, TorchFacts
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.rates import measure_rates
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.worker.client import ModelWorker, run_job
from wan22core.worker.host import resolve_device, torch_facts

BARE = "0a1b2c3d-0000-1111-2222-333344445555"
ONE = TorchDevice(index=0, name="NVIDIA L4", uuid=BARE, total_mib=23_034, compute_capability="8.9")
OTHER = TorchDevice(index=1, name="NVIDIA H100 80GB HBM3", uuid=None, total_mib=81_079, compute_capability="9.0")
BOTH = TorchFacts(version="2.13.0", cuda_version="13.0", devices=[ONE, OTHER], reason=None)
NONE = TorchFacts(version="2.13.0", cuda_version=None, devices=[], reason="built without CUDA")


@pytest.mark.parametrize(
    ("asked", "facts", "preferred", "device"),
    [
        ("auto", BOTH, None, "cuda:0"),
        ("auto", BOTH, f"GPU-{BARE.upper()}", "cuda:0"),
        ("auto", BOTH, "NVIDIA H100 80GB HBM3", "cuda:1"),
        ("auto", NONE, "NVIDIA H100 80GB HBM3", "cpu"),
        ("auto", None, "NVIDIA H100 80GB HBM3", "cpu"),
        ("cpu", BOTH, "NVIDIA H100 80GB HBM3", "cpu"),
        ("cuda", BOTH, "NVIDIA H100 80GB HBM3", "cuda:0"),
        ("cuda:1", BOTH, f"GPU-{BARE}", "cuda:1"),
    ],
)
def test_auto_is_the_preferred_gpu(
    asked: str, facts: TorchFacts | None, preferred: str | None, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By UUID as NVML writes it, or by name; what was asked for by name is not touched."""
    assert resolve_device(asked, facts, preferred) == device
    assert caplog.messages == []


def test_a_preferred_gpu_that_torch_does_not_see_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The first one is taken, with a line in the log."""
    with caplog.at_level(logging.WARNING):
        assert resolve_device("auto", BOTH, "GPU-gone") == "cuda:0"
    assert "torch does not see the preferred GPU GPU-gone" in caplog.text
    assert "NVIDIA L4, NVIDIA H100 80GB HBM3" in caplog.text


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(IncompatibleHardwareError, match="no device cuda:2: it has 2"):
        resolve_device("cuda:2", BOTH)
    with pytest.raises(IncompatibleHardwareError, match="no device cuda:0: built without CUDA"):
        resolve_device("cuda", NONE, "NVIDIA L4")


def test_the_preference_goes_into_every_start_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session reads it once; the child takes it along with the spec."""
    settings, asked = Settings(), []
    prefer(settings.data_dir, "NVIDIA L4", [])
    start = ModelWorker.start

    def seen(worker: ModelWorker, arguments: dict[str, Any], deadline_s: float) -> Any:
        asked.append(arguments["preferred_gpu"])
        return start(worker, arguments, deadline_s)

    monkeypatch.setattr(ModelWorker, "start", seen)
    folder = new_run_folder(settings.runs_path, new_run_id())
    recording = Recording.new(folder, faulty_spec(), "wan22 benchmark", interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        session.detect_hardware()
        assert session.device == "cpu"
    assert asked == ["NVIDIA L4"]


@pytest.mark.parametrize(("device", "words"), [("cpu", "can't be measured on the device cpu"), ("cuda:99", "cuda:99")])
def test_copies_need_a_gpu(tmp_path: Path, device: str, words: str) -> None:
    """The job in its child refuses the CPU, and a device that torch does not have."""
    with pytest.raises(IncompatibleHardwareError, match=words):
        run_job(
            "wan22core.worker.copy_rates:copy_rates_job",
            {"device": device},
            deadline_s=120,
            log_path=tmp_path / "job.log",
        )


def test_a_machine_without_a_gpu_keeps_its_disk_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies have torch's reason; both are kept."""
    monkeypatch.setattr("wan22core.session.rates.disk_rate", _small_disk_rate)
    rates = measure_rates(Settings(), NONE)
    assert (rates.copies.pinned_bytes_s.value, rates.copies.pinned_bytes_s.reason) == (None, "built without CUDA")
    assert rates.disk.read_bytes == 2**20
    assert load_rates(Settings().data_dir) == rates


def test_copies_that_were_not_asked_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch the disk is measured again, and the copies keep their figures and their day."""
    monkeypatch.setattr("wan22core.session.rates.disk_rate", _small_disk_rate)
    first = measure_rates(Settings(), None)
    assert (first.copies.cast_bytes_s.reason, first.copies_measured_at) == ("torch was not asked", None)
    kept = first.model_copy(update={"copies": copies(), "copies_measured_at": DAY, "disk_measured_at": DAY})
    keep_rates(Settings().data_dir, kept)
    again = measure_rates(Settings(), None)
    assert (again.copies, again.copies_measured_at) == (copies(), DAY)
    assert again.disk_measured_at > DAY
    assert load_rates(Settings().data_dir) == again
    assert measure_rates(Settings(), NONE).copies.cast_bytes_s.reason == "built without CUDA"


def _small_disk_rate(folder: Path) -> Any:
    from wan22core.hardware.disk_rate import disk_rate

    return disk_rate(folder, file_bytes=2**20)


@pytest.mark.gpu
def test_copies_to_this_gpu(tmp_path: Path) -> None:
    """Page-locked memory is no slower than pageable, and that no slower than with a cast before it."""
    if not torch_facts().devices:
        pytest.skip("torch sees no CUDA device")
    answer = run_job(
        "wan22core.worker.copy_rates:copy_rates_job",
        {"device": "cuda:0"},
        deadline_s=300,
        log_path=tmp_path / "job.log",
    )
    pinned, pageable, cast = (answer[f"{name}_bytes_s"]["value"] for name in ("pinned", "pageable", "cast"))
    assert pinned >= pageable >= cast > 0
