"""The memory of a card: what is said to fit, what is done at 90 %, which card is filled and how far."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.validation.results import SNAPSHOTS, answered, misses, result_of
from wan22core.hardware.nvml import GpuReading
from wan22core.planning.calibration import memory_factors
from wan22core.records import CheckVerdict, Reading, TorchDevice, TorchFacts
from wan22core.settings import Settings
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.thresholds import WATCHES
from wan22core.validation import rtx_4080_memory
from wan22core.validation.context import Context, packaged


@pytest.mark.parametrize(("peak_mib", "missed"), [(15_900.0, "with its safety"), (1_000.0, "above its weights")])
def test_a_plan_that_can_not_be_fails(peak_mib: float, missed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks that are said to fit are held against the card's own readings, and against the weights alone."""
    monkeypatch.setattr(rtx_4080_memory, "highest_mib", lambda _: peak_mib)
    assert any(each.startswith("peak of") and missed in each for each in misses(result_of("rtx_4080.vram_plan")))


def test_a_memory_model_that_is_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must say what was measured, to a tenth."""
    factors = memory_factors()
    off = factors.model_copy(update={"decoder_values_per_pixel": 1.3 * factors.decoder_values_per_pixel})
    monkeypatch.setattr(rtx_4080_memory, "memory_factors", lambda: off)
    found = misses(result_of("rtx_4080.vram_plan"))
    assert found
    assert all(each.endswith("predicted by measured") for each in found)


def test_a_card_of_unknown_size_has_no_plan(tmp_path: Path) -> None:
    text = (SNAPSHOTS / "synthetic_rtx-4080" / "nvidia-smi-query-gpu.csv").read_text()
    (tmp_path / "query.csv").write_text(text.replace("16376", "[N/A]"))
    result = result_of("rtx_4080.vram_plan", Context.new("x", Settings(), tmp_path))
    assert (result.verdict, "what is free of the card is unknown" in str(result.reason)) == (
        CheckVerdict.NOT_MEASURED, True,
    )  # fmt: skip


def test_a_monitor_that_does_nothing_at_90_percent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = [watch for watch in WATCHES if watch.quantity != "vram"]
    monkeypatch.setattr(rtx_4080_memory, "HealthMonitor", partial(HealthMonitor, watches=quiet))
    assert misses(result_of("rtx_4080.vram_action")) == ["actions", "use at the first action, %", "alerts"]


UUID = "GPU-00000000-0000-0000-0000-000000000001"


class Probe:
    """A card at rest, but for what it is made with."""

    def __init__(self, **reading: Any) -> None:
        self.reasons: dict[str, str] = {"gpu_device_mib": "NVML: not supported"}
        self._reading = GpuReading(**{"gpu_device_mib": 100.0, "processes": (), **reading})

    def read(self, pid: int | None) -> GpuReading:
        return self._reading

    def close(self) -> None:
        return None


def context_with(*devices: tuple[str | None, int], own: str | None = None) -> Context:
    """CUDA devices by uuid and MiB; ``own`` is the uuid of this machine's RTX 4080, where it has one."""
    context = Context.new("x", Settings())
    found = [
        TorchDevice(index=index, name=f"card {index}", uuid=uuid, total_mib=mib, compute_capability="8.9")
        for index, (uuid, mib) in enumerate(devices)
    ]
    context.__dict__["torch"] = TorchFacts(version="2.13.0", cuda_version="13.0", devices=found, reason=None)
    gpu = packaged("synthetic_rtx-4080")[0].gpus[0]
    mine = gpu.model_copy(update={"uuid": Reading[str](value=own, source="nvml")}) if own is not None else None
    context.__dict__["here"] = context.here.model_copy(update={"gpus": [mine] if mine is not None else []})
    return context


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({}, []),
        ({"refused": False}, ["an allocation is refused"]),
        ({"allocated_mib": 9_000}, ["handed out before the refusal, MiB"]),
        ({"peak_process_mib": 16_385.0}, ["peak of the process, MiB"]),
    ],
)
def test_a_ceiling_that_does_not_hold_fails(
    changed: dict[str, Any], missed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtx_4080_memory, "open_probe", lambda _: Probe())
    good = {"refused": True, "free_before_mib": 80_000, "allocated_mib": 15_600, "peak_process_mib": 16_300.0}
    answered(monkeypatch, **{**good, **changed})
    result = result_of("rtx_4080.vram_allocations", context_with((UUID, 81_000)))
    assert [each.what for each in result.observations if each.held is False] == missed
    assert (result.verdict is CheckVerdict.PASS) == (not missed)
    assert result.looked_at == ["card 0 under an emulated ceiling of 16384 MiB"]


@pytest.mark.parametrize(
    ("devices", "own", "chosen"),
    [
        ([("GPU-a", 24_000), ("b", 16_077)], "GPU-b", "cuda:1"),
        ([("GPU-a", 8_000), ("GPU-b", 24_000)], None, "cuda:1"),
        ([("GPU-a", 8_000), ("GPU-b", 24_000)], "GPU-hidden", "cuda:1"),
    ],
)
def test_the_card_that_is_filled_is_the_one_it_is_about(
    devices: list[tuple[str, int]], own: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's RTX 4080 by its uuid, else the first that is large enough."""
    monkeypatch.setattr(rtx_4080_memory, "open_probe", lambda _: Probe())
    asked = answered(monkeypatch, refused=True, free_before_mib=0, allocated_mib=0, peak_process_mib=1.0)
    result_of("rtx_4080.vram_allocations", context_with(*devices, own=own))
    assert [each["device"] for each in asked] == [chosen]


@pytest.mark.parametrize(
    ("device", "probe", "reason"),
    [
        ((UUID, 12_000), {}, "no device of 16 GiB here: card 0 of 12000 MiB"),
        ((None, 24_000), {}, "torch gives no uuid of card 0"),
        ((UUID, 24_000), {"processes": (7, 8)}, "2 other processes compute on card 0"),
        ((UUID, 24_000), {"gpu_device_mib": 1_201.0}, "1201 of 24000 MiB of card 0 are in use, more than 5%"),
        ((UUID, 24_000), {"gpu_device_mib": None}, "what is in use of card 0 is unknown: NVML: not supported"),
    ],
)
def test_a_card_that_can_not_be_filled_is_left_alone(
    device: tuple[str | None, int], probe: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtx_4080_memory, "open_probe", lambda _: Probe(**probe))
    asked = answered(monkeypatch)
    result = result_of("rtx_4080.vram_allocations", context_with(device))
    assert (result.verdict, reason in str(result.reason)) == (CheckVerdict.NOT_MEASURED, True), result.reason
    assert asked == []


def test_a_card_that_can_not_be_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real probe: this card is on no machine."""
    asked = answered(monkeypatch)
    result = result_of("rtx_4080.vram_allocations", context_with((UUID, 24_000)))
    assert (result.verdict, "whether others use card 0 is unknown" in str(result.reason)) == (
        CheckVerdict.NOT_MEASURED, True,
    )  # fmt: skip
    assert asked == []
