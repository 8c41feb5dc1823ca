"""The whole profile: NVML and torch side by side, and the software."""

from __future__ import annotations

import os
from pathlib import Path

import pynvml
import pytest

from tests.hardware import dumps
from tests.hardware.machines import UUID, install, write
from wan22core.errors import UserInputError
from wan22core.hardware.capture import capture
from wan22core.hardware.detect import detect
from wan22core.hardware.manual import set_vram
from wan22core.hardware.snapshot import read_snapshot
from wan22core.hardware.software import commit_of
from wan22core.records import GpuProfile, Reading, TorchDevice, TorchFacts

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def facts(*devices: TorchDevice, reason: str | None = None) -> TorchFacts:
    return TorchFacts(version="2.13.0", cuda_version="13.0", devices=list(devices), reason=reason)


def device(index: int = 0, uuid: str | None = UUID.removeprefix("GPU-"), total_mib: int = 16_376) -> TorchDevice:
    return TorchDevice(index=index, name="NVIDIA Example", uuid=uuid, total_mib=total_mib, compute_capability="8.9")


def gpus(folder: Path, torch_facts: TorchFacts | None) -> list[GpuProfile]:
    return detect(folder, torch_facts).gpus


def test_nvml_fills_every_field_that_the_card_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Text comes as str from bytes, versions as they are spoken; a consumer card has no MIG to tell of."""
    install(monkeypatch)
    (gpu,) = gpus(tmp_path, None)
    values = {name: reading["value"] for name, reading in gpu.model_dump(exclude={"index", "state"}).items()}
    assert values == {
        "name": "NVIDIA Example",
        "uuid": UUID,
        "vram_total_mib": 16376,
        "vram_used_mib": 1024,
        "compute_capability": "8.9",
        "driver": "580.95.05",
        "cuda": "13.1",
        "power_limit_w": 320.0,
        "temperature_c": 66.0,
        "mig": None,
        "ecc_enabled": False,
        "cuda_cores": 9728,
        "max_sm_mhz": 2505,
        "max_memory_mhz": 2505,
        "memory_bus_bits": 256,
        "pcie_generation": 4,
        "pcie_width": 16,
        "numa_node": None,
        "torch_index": None,
    }
    assert gpu.mig.reason == "NVML: Not Supported"
    assert gpu.torch_index.reason == "torch was not asked"


def test_torchs_number_is_matched_by_uuid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under CUDA_VISIBLE_DEVICES NVML's first card may be torch's second; it stays one entry."""
    install(monkeypatch)
    other = device(0, uuid="ffffffff-0000-1111-2222-333344445555")
    ours, only_torch = gpus(tmp_path, facts(other, device(1)))
    assert (ours.torch_index.value, ours.vram_total_mib.source) == (1, "nvml")
    assert (only_torch.torch_index.value, only_torch.vram_total_mib.source) == (0, "torch")
    assert only_torch.uuid.value == "GPU-ffffffff-0000-1111-2222-333344445555"
    assert only_torch.temperature_c.reason == "NVML does not show this device, and torch does not say"


def test_a_card_that_torch_may_not_use_has_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is listed all the same, with torch's reason."""
    install(monkeypatch)
    (gpu,) = gpus(tmp_path, facts(reason="CUDA_VISIBLE_DEVICES is empty"))
    assert (gpu.torch_index.value, gpu.torch_index.reason) == (None, "CUDA_VISIBLE_DEVICES is empty")


@pytest.mark.parametrize(
    ("torch_mib", "source"), [(15_976, "nvml"), (16_776, "nvml"), (15_975, "nvml (torch says 15975 MiB)")]
)
def test_a_disagreement_on_the_memory_is_told_beyond_400_mib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, torch_mib: int, source: str
) -> None:
    """2 % of a 16 GiB card is less than the 400 MiB that are always allowed."""
    install(monkeypatch)
    (gpu,) = gpus(tmp_path, facts(device(total_mib=torch_mib)))
    assert (gpu.vram_total_mib.value, gpu.vram_total_mib.source) == (16_376, source)


def test_torch_without_uuids_leaves_the_match_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The entry by torch says that it may be NVML's card."""
    install(monkeypatch)
    by_nvml, by_torch = gpus(tmp_path, facts(device(uuid=None)))
    assert by_nvml.torch_index.value is None
    assert by_torch.uuid.reason == "torch gives no uuid, so this may be one of the GPUs that NVML shows"


def test_no_gpu_is_told_in_the_words_of_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect(tmp_path).gpu_reason == "NVML: NVML Shared Library Not Found; nvidia-smi: it is not installed"
    asked = detect(tmp_path, facts(reason="this torch was built without CUDA"))
    assert asked.gpus == []
    assert str(asked.gpu_reason).startswith(
        "NVML: NVML Shared Library Not Found; torch: this torch was built without CUDA"
    )


def test_a_card_without_nvml_is_listed_by_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    profile = detect(tmp_path, facts(device()))
    assert [gpu.name.source for gpu in profile.gpus] == ["torch"]
    assert profile.gpu_reason is None


def test_a_card_that_fell_off_the_bus_is_listed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It does not hide the others and does not end the detection."""
    install(monkeypatch, nvmlDeviceGetHandleByIndex=pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST))
    (gpu,) = gpus(tmp_path, None)
    assert (gpu.name.value, gpu.name.reason) == (None, "NVML: GPU is lost")


def test_an_nvml_without_cards_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, nvmlDeviceGetCount=0)
    assert str(detect(tmp_path).gpu_reason).startswith("NVML sees no GPU")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "found", "errors", "words"),
    [
        (f"cat <<'END'\n{dumps.XML}\nEND", ["NVIDIA GeForce RTX 4080"], [], None),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            [],
            ["driver_library_mismatch"],
            "lists no GPU",
        ),
        ("exit 9", [], [], "lists no GPU"),
    ],
)
def test_nvidia_smi_is_asked_where_nvml_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, found: list[str], errors: list[str], words: str | None
) -> None:
    """A real child process, with the output of the real tool; its complaints have codes."""
    install(monkeypatch, nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    profile = detect(tmp_path)
    assert ([gpu.name.value for gpu in profile.gpus], profile.errors) == (found, errors)
    assert words is None or words in str(profile.gpu_reason)


def test_what_a_person_entered_counts_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only where no source gives the figure; where no source sees a GPU the entry is it."""
    set_vram(tmp_path, "NVIDIA Example", 999)
    assert detect(tmp_path).gpus[0].vram_total_mib == Reading(value=999, source="manual")
    install(monkeypatch)
    assert detect(tmp_path).gpus[0].vram_total_mib == Reading(value=16376, source="nvml")
    (tmp_path / "hardware.json").write_text("{")
    with pytest.raises(UserInputError, match=r"hardware\.json can't be understood"):
        detect(tmp_path)


def test_a_snapshot_of_this_machine_reads_back(tmp_path: Path) -> None:
    """The files that are written are understood, and say the same as the detection."""
    written, missing = capture(tmp_path / "snapshot")
    again, now = read_snapshot(tmp_path / "snapshot"), detect(tmp_path)
    assert written and not set(written) & {line.partition(":")[0] for line in missing}
    assert again.notes == []
    for name in ("model", "logical_cpus", "physical_cores", "numa_nodes", "numa_cpus", "usable_cpus"):
        assert getattr(again.cpu, name).value == getattr(now.cpu, name).value, name
    assert again.memory.total_mib.value == now.memory.total_mib.value


@pytest.mark.parametrize(
    ("files", "value", "reason"),
    [
        ({".git/HEAD": f"{COMMIT}\n"}, COMMIT, None),
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{COMMIT}\n"}, COMMIT, None),
        (
            {".git/HEAD": "ref: refs/heads/main\n", ".git/packed-refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"},
            COMMIT,
            None,
        ),
        (
            {
                ".git": "gitdir: main/.git/worktrees/one\n",
                "main/.git/worktrees/one/HEAD": "ref: refs/heads/one\n",
                "main/.git/worktrees/one/commondir": "../..\n",
                "main/.git/refs/heads/one": f"{COMMIT}\n",
            },
            COMMIT,
            None,
        ),
        ({".git/HEAD": "ref: refs/heads/main\n"}, None, "refs/heads/main names no commit"),
        ({}, None, "wan22 does not run from a git checkout"),
    ],
    ids=["detached", "branch", "packed", "worktree", "unborn", "none"],
)
def test_the_commit_is_read_from_gits_own_files(
    tmp_path: Path, files: dict[str, str], value: str | None, reason: str | None
) -> None:
    """Detached, on a branch, packed, in a worktree; a branch without a commit and no checkout are reasons."""
    commit = commit_of(write(tmp_path, files))
    assert (commit.value, commit.reason) == (value, reason)


def test_a_package_that_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("wan22core.hardware.software._PACKAGES", ("pydantic", "no-such-package"))
    packages = detect(tmp_path).software.packages
    assert packages["pydantic"].source == "package metadata"
    assert packages["no-such-package"].reason == "not installed"
