"""Plans: complete for every card, monotone, and fast without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import GPU_SPECS, find_spec
from wan22core.planning.planner import Plan, Predicted, plan
from wan22core.specs import WORKLOADS

TARGET = WORKLOADS["2s-720p"]


def of(name: str, vram_mib: float | None = None, ceiling_mib: int | None = None) -> Plan:
    spec = find_spec(name)
    assert spec is not None
    return plan(spec, vram_mib or spec.vram_gib * 1024 * 0.97, TARGET, ceiling_mib=ceiling_mib)


def usable(result: Plan) -> dict[str, float]:
    return {c.configuration.name: c.generation.mid for c in result.candidates if c.fits and c.exact and c.generation}


@pytest.mark.parametrize("spec", GPU_SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("workload", ["2s-480p", "2s-720p", "2s-720p-i2v", "5s-720p"])
def test_every_card_has_a_plan(spec: GpuSpec, workload: str) -> None:
    """Peaks of every stage, intervals no wider than 1.6, and what is recommended fits."""
    result = plan(spec, spec.vram_gib * 1024 * 0.97, WORKLOADS[workload])
    for candidate in result.candidates:
        assert {"load", "encode", "denoise", "decode"} <= candidate.peaks.keys()
        for time in candidate.times.values():
            assert 0 < time.low <= time.mid <= time.high <= 1.6 * time.low
    chosen = next((c for c in result.candidates if c.configuration.name == result.recommended), None)
    assert chosen is None or chosen.fits


def test_the_reference_needs_a_large_card() -> None:
    """Everything resident and a decode of whole frames in fp32: an H100 holds it, an RTX 4080 does not."""
    large, small = of("H100 80GB HBM3"), of("RTX 4080")
    assert next(c for c in large.candidates if c.configuration.name == "reference").fits
    reference = next(c for c in small.candidates if c.configuration.name == "reference")
    assert (large.recommended, small.recommended, reference.fits) == ("safe_12g", "fast_int8", False)
    assert reference.spare_mib < -30_000
    assert reference.targets["vram_usage"] is Predicted.FAIL


def test_bf16_alone_can_not_reach_the_target_on_an_rtx_4080() -> None:
    """154 s of products at the speed of light; fp16 accumulation, fp8 or int8 may."""
    by_name = {candidate.configuration.name: candidate for candidate in of("RTX 4080").candidates}
    bf16 = by_name["lossless_16g"]
    assert bf16.generation is not None
    assert bf16.generation.low > 120
    assert bf16.targets["video_2s_generation"] is Predicted.FAIL
    int8 = by_name["fast_int8"]
    assert int8.generation is not None
    assert int8.generation.mid < bf16.generation.mid
    assert int8.targets["vram_usage"] is not Predicted.FAIL
    assert any("steps" in line for line in of("RTX 4080").advice)


def test_a_step_cache_is_advised_and_recommended_by_nothing() -> None:
    """Half of the steps where that is known, an upper bound where the content decides; no target is asserted for it."""
    result = of("RTX 4080")
    by_name = {candidate.configuration.name: candidate for candidate in result.candidates}
    whole, half, bound = (by_name[name] for name in ("fast_int8", "mag_cache", "first_block_cache"))
    ratio = whole.times["denoise"].mid / half.times["denoise"].mid
    assert 1.9 < ratio < 2  # the transformer still comes to the card
    assert whole.times["denoise"] == bound.times["denoise"]
    assert [each.is_bound for each in (whole, half, bound)] == [False, False, True]
    assert half.targets["video_2s_generation"] is Predicted.NOT_ASSERTED
    assert half.generation is not None
    assert half.generation.high < 120
    assert any(line.startswith("mag_cache computes 50% of the steps") for line in result.advice)
    assert not any("mag_cache" in line for line in of("H200").advice)
    assert result.recommended == "fast_int8"


def test_a_recipe_keeps_to_its_budget_on_a_larger_card() -> None:
    """The smallest tiles that keep it there; without a budget a large card's room is taken."""
    highest = {
        c.configuration.name: max(peak.process_mib for peak in c.peaks.values())
        for c in of("H100 80GB HBM3").candidates
    }
    for name, gib in (
        ("low_4g", 4),
        ("low_6g", 6),
        ("low_8g", 8),
        ("safe_12g", 12),
        ("fast_int8", 12),
        ("lossless_16g", 16),
    ):
        assert highest[name] <= gib * 1024
    assert highest["fast"] > 16 * 1024


def test_a_ceiling_takes_candidates_away() -> None:
    """Under 12 GiB the transformer in bf16 does not stay on the device."""
    free, limited = usable(of("H100 80GB HBM3")), usable(of("H100 80GB HBM3", ceiling_mib=12_288))
    assert limited.keys() < free.keys()
    assert "lossless_16g" not in limited


@given(st.sampled_from(GPU_SPECS), st.floats(2_000, 200_000), st.floats(1.0, 3.0))
@settings(max_examples=60, deadline=None)
def test_more_memory_never_makes_a_plan_worse(spec: GpuSpec, vram_mib: float, factor: float) -> None:
    """What fits goes on fitting, and the best is no slower."""
    less, more = usable(plan(spec, vram_mib, TARGET)), usable(plan(spec, vram_mib * factor, TARGET))
    assert less.keys() <= more.keys()
    assert not less or min(more.values()) <= min(less.values())


@given(st.sampled_from(GPU_SPECS), st.floats(1.0, 4.0))
@settings(max_examples=60, deadline=None)
def test_more_bandwidth_never_makes_a_plan_slower(spec: GpuSpec, factor: float) -> None:
    """Stage by stage."""
    faster = spec.model_copy(update={"bandwidth_gb_s": spec.bandwidth_gb_s * factor})
    vram = spec.vram_gib * 1024.0
    for slow, fast in zip(plan(spec, vram, TARGET).candidates, plan(faster, vram, TARGET).candidates, strict=True):
        assert slow.fits <= fast.fits
        for stage, time in slow.times.items():
            assert fast.times[stage].mid <= time.mid + 1e-9


def test_the_command_needs_no_torch() -> None:
    """One document, with every candidate; neither torch nor Prefect is imported for it."""
    code = (
        "import sys\nfrom flows.cli.main import cli\n"
        "cli.main(['plan', '--gpu', 'RTX 4080', '--json'], standalone_mode=False)\n"
        "print(sorted({'torch', 'prefect', 'diffusers', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert {"recommended", "candidates", "recommendations"} <= document.keys()
    assert document["candidates"][0]["recipe"] == "reference"
    assert done.stderr.strip() == "[]"
