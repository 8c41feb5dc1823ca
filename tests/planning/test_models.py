"""The memory and the time model against measured rows, each predicted from the others."""

from __future__ import annotations

from math import isfinite, isnan
from typing import Any

import pytest

from wan22core.hardware.formats.facts import Facts, GpuFacts
from wan22core.hardware.gpu_specs import GPU_SPECS, find_spec, spec_of
from wan22core.hardware.merge import gpus_of
from wan22core.planning import work
from wan22core.planning.calibration import (
    MeasuredRow,
    fit_memory,
    fit_time,
    measured_card,
    measured_rows,
    memory_factors,
    time_factors,
)
from wan22core.planning.configuration import Configuration
from wan22core.planning.memory_model import peaks
from wan22core.planning.time_model import TimeModel
from wan22core.recipes import recipe, with_text_encoder
from wan22core.records import Reading
from wan22core.specs import WORKLOADS, Precision

GIB = 2**30
ROWS = measured_rows()


def name_of(row: MeasuredRow) -> str:
    configuration, shape = row.configuration, row.workload
    tile = "" if configuration.tile is None else f"-{configuration.tile[0]}x{configuration.tile[1]}"
    return f"{configuration.name}-{configuration.transformer}-{configuration.vae}-{shape.width}x{shape.frames}{tile}"


def without(row: MeasuredRow) -> list[MeasuredRow]:
    return [other for other in ROWS if other is not row]


def test_bytes_are_counted_from_the_shapes() -> None:
    """What the device holds with everything resident is within half a per cent of what was measured."""
    text = work.text_encoder_bytes(Precision.BF16)
    for vae, measured_gib in ((Precision.FP32, 22.55), (Precision.BF16, 21.24)):
        total = work.transformer_bytes(Precision.BF16) + text + work.vae_bytes(vae)
        assert total / GIB == pytest.approx(measured_gib, rel=0.005)
    prototypes = work.transformer_bytes(Precision.FP8) + work.PROMPT_LINEARS_SAVE_BYTES
    assert prototypes / GIB == pytest.approx(5.35, rel=0.015)


@pytest.mark.parametrize("name", ["fast_int8", "low_6g"])
def test_a_text_encoder_in_int8_holds_about_half(name: str) -> None:
    """Resident while it encodes, and in the slots of its blocks; it is brought to the card sooner."""
    workload = WORKLOADS["2s-720p"]
    plain, int8 = (Configuration.of(each) for each in (recipe(name), with_text_encoder(recipe(name), Precision.INT8)))
    held = [peaks(each, workload, memory_factors())["encode"].allocated_mib for each in (plain, int8)]
    assert 0.5 < held[1] / held[0] < 0.6
    spec = find_spec("RTX 4080")
    assert spec is not None
    times = [TimeModel(spec, time_factors()).stages(each, workload) for each in (plain, int8)]
    assert times[0] is not None and times[1] is not None
    assert times[1]["encode"].mid < times[0]["encode"].mid or name == "low_6g"
    assert times[1]["denoise"] == times[0]["denoise"]


def test_every_factor_is_measured() -> None:
    """A factor without a row is NaN, never a favourable zero; the shipped ones all have rows."""
    assert all(isfinite(value) for value in memory_factors().model_dump().values())
    times = time_factors().model_dump()
    traffic = times.pop("decode_bytes_per_pixel").values()
    assert all(isfinite(value) and value > 0 for value in (*times.values(), *traffic))
    no_encoder = [row for row in ROWS if row.encode_allocated_mib is None]
    assert isnan(fit_memory(no_encoder).encoder_mib)


def test_flop_are_counted_from_the_shapes() -> None:
    """One forward at 11,440 tokens: 0.993e14 in linears, 0.483e14 in self- and 0.02e14 in cross-attention."""
    workload = WORKLOADS["2s-720p"]
    assert workload.tokens == 11_440
    assert work.linear_flop(workload) == pytest.approx(0.993e14, rel=0.01)
    assert work.attention_flop(workload) == pytest.approx(0.504e14, rel=0.01)
    assert work.forwards(workload) == 100


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_memory_of_a_row_is_predicted_from_the_others(row: MeasuredRow) -> None:
    """Allocated within 5 %, reserved within 10 %."""
    found = peaks(row.configuration, row.workload, fit_memory(without(row)))
    for stage in ("denoise", "decode"):
        allocated, reserved = getattr(row, f"{stage}_allocated_mib"), getattr(row, f"{stage}_reserved_mib")
        if allocated is not None:
            assert found[stage].allocated_mib == pytest.approx(allocated, rel=0.05), stage
        if reserved is not None:
            assert found[stage].reserved_mib == pytest.approx(reserved, rel=0.10), stage


@pytest.mark.parametrize(("width", "frames"), [(832, 49), (1280, 25)])
def test_memory_of_a_shape_is_predicted_from_the_other_shapes(width: int, frames: int) -> None:
    """A whole shape left out: the same bounds."""
    shape = [row for row in ROWS if (row.workload.width, row.workload.frames) == (width, frames)]
    factors = fit_memory([row for row in ROWS if row not in shape])
    for row in shape:
        found = peaks(row.configuration, row.workload, factors)
        assert found["denoise"].allocated_mib == pytest.approx(row.denoise_allocated_mib, rel=0.05)
        assert found["decode"].allocated_mib == pytest.approx(row.decode_allocated_mib, rel=0.05)
        assert found["decode"].reserved_mib == pytest.approx(row.decode_reserved_mib, rel=0.10)


@pytest.mark.parametrize("row", [row for row in ROWS if row.step_s or row.decode_s], ids=name_of)
def test_time_of_a_row_is_predicted_from_the_others(row: MeasuredRow) -> None:
    """Within 20 %, inside the interval that is given."""
    model = measured_card(fit_time(without(row)))
    if row.step_s is not None:
        assert model.step_s(row.configuration, row.workload) == pytest.approx(row.step_s, rel=0.20)
    if row.decode_s is not None:
        assert model.decode_s(row.configuration, row.workload) == pytest.approx(row.decode_s, rel=0.20)


@pytest.mark.parametrize(
    ("name", "bf16", "fp16_fp16", "fp8_fp32", "int8"),
    [
        ("RTX 4080", 97.5, 195, 195, 390),
        ("RTX 4090", 165.2, 330.3, 330.3, 660.6),
        ("RTX 3090", 71, 142, None, 285),
        ("RTX 2080 Ti", None, 107.6, None, 215),
        ("RTX 5090", 209.5, 419, 419, 838),
        ("L40S", 362, 362, 733, 733),
        ("A100-SXM4-80GB", 312, 312, None, 624),
        ("H100 80GB HBM3", 989, 989, 1979, 1979),
    ],
)
def test_peaks_are_the_vendors(
    name: str, bf16: float | None, fp16_fp16: float, fp8_fp32: float | None, int8: float
) -> None:
    """Computed from the generation's table, they are the published dense figures within 1.5 %."""
    spec = find_spec(name)
    assert spec is not None
    for operation, published in (
        ("bf16_fp32", bf16),
        ("fp16_fp16", fp16_fp16),
        ("fp8_fp32", fp8_fp32),
        ("int8_int32", int8),
    ):
        peak = spec.peak_flop_s(operation)  # type: ignore[arg-type]
        assert (peak is None) == (published is None), operation
        if peak is not None:
            assert peak / 1e12 == pytest.approx(published, rel=0.015), operation


@pytest.mark.parametrize(
    ("name", "vram_mib", "found"),
    [
        ("NVIDIA GeForce RTX 4080", None, "GeForce RTX 4080"),
        ("rtx 4080", 16376, "GeForce RTX 4080"),
        ("NVIDIA GeForce RTX 4080 SUPER", None, "GeForce RTX 4080 SUPER"),
        ("NVIDIA GeForce RTX 4060 Ti", 16380, "GeForce RTX 4060 Ti 16GB"),
        ("NVIDIA GeForce RTX 4060 Ti", 8188, "GeForce RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", None, "GeForce RTX 4070 Laptop GPU"),
        ("NVIDIA RTX 2000 Ada Gene...", None, None),
        ("NVIDIA RTX 6000 Ada Gene...", None, "RTX 6000 Ada Generation"),
        ("Orin (nvgpu)", None, None),
    ],
)
def test_a_card_is_found_by_its_name(name: str, vram_mib: int | None, found: str | None) -> None:
    """However the tools write it; of two sizes under one name the reported memory tells which."""
    spec = find_spec(name, vram_mib)
    assert (spec.name if spec is not None else None) == found


def test_a_card_that_the_table_does_not_have_is_derived() -> None:
    """From the driver's cores, clocks and bus: an RTX 4080's own figures give an RTX 4080's rates."""
    said: dict[str, Any] = {
        "name": "NVIDIA GeForce RTX 4999",
        "compute_capability": "8.9",
        "cuda_cores": 9728,
        "max_sm_mhz": 2505,
        "max_memory_mhz": 11201,
        "memory_bus_bits": 256,
        "vram_total_mib": 16376,
    }
    fields = {name: Reading[Any](value=value, source="nvml") for name, value in said.items()}
    spec = spec_of(gpus_of([Facts(gpus=[GpuFacts(0, fields)])])[0][0])
    known = find_spec("RTX 4080")
    assert spec is not None and known is not None
    assert (spec.source, spec.sms, spec.vram_gib) == ("derived", 76, 16)
    assert spec.peak_flop_s("bf16_fp32") == known.peak_flop_s("bf16_fp32")
    assert spec.bandwidth_gb_s == pytest.approx(known.bandwidth_gb_s, rel=0.01)
    del fields["memory_bus_bits"]
    assert spec_of(gpus_of([Facts(gpus=[GpuFacts(0, fields)])])[0][0]) is None


def test_no_two_cards_have_one_name() -> None:
    """A name finds its own entry."""
    names = [spec.name for spec in GPU_SPECS]
    assert len(set(names)) == len(names)
    for spec in GPU_SPECS:
        assert find_spec(spec.name, spec.vram_gib * 1024) == spec


@pytest.mark.parametrize(("asked", "as_if"), [(Precision.NONE, Precision.FP32), (Precision.FP16, Precision.BF16)])
def test_every_precision_of_a_vae_has_a_time_and_a_peak(asked: Precision, as_if: Precision) -> None:
    """The checkpoint's own is fp32; fp16 has the width and the rate of bf16."""
    row = next(row for row in ROWS if row.configuration.tile is None)
    found, same = (row.configuration.model_copy(update={"vae": precision}) for precision in (asked, as_if))
    model = measured_card(time_factors())
    assert model.stages(found, row.workload) == model.stages(same, row.workload) is not None
    assert peaks(found, row.workload, memory_factors()) == peaks(same, row.workload, memory_factors())


@pytest.mark.parametrize("transformer", [Precision.FP32, Precision.NONE])
def test_a_transformer_in_fp32_gets_no_time_of_another_precision(transformer: Precision) -> None:
    """The table of cards has no rate for its products."""
    row = ROWS[0]
    found = row.configuration.model_copy(update={"transformer": transformer})
    assert measured_card(time_factors()).stages(found, row.workload) is None
