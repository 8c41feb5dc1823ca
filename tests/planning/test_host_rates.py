"""The rates that a plan counts with, and what they change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.hardware.test_rates import NEVER, measured
from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import find_spec
from wan22core.hardware.rates import CopyRates
from wan22core.planning import work
from wan22core.planning.calibration import time_factors
from wan22core.planning.configuration import Configuration
from wan22core.planning.host_rates import host_rates
from wan22core.planning.time_model import Rates, TimeModel
from wan22core.recipes import recipe
from wan22core.records import Reading
from wan22core.specs import WORKLOADS, Precision

REFERENCE = Configuration.of(recipe("reference"))
TARGET = WORKLOADS["2s-720p"]


def card(name: str = "H100 80GB HBM3") -> GpuSpec:
    found = find_spec(name)
    assert found is not None
    return found


def copies(**changes: Any) -> CopyRates:
    def rate(gb_s: float) -> Reading[float]:
        return Reading(value=gb_s * 1e9, source="test")

    values = {
        "device_name": "NVIDIA H100 80GB HBM3",
        "copied_bytes": 2**29,
        "pageable_bytes_s": rate(8.4),
        "cast_bytes_s": rate(4.0),
        "pinned_bytes_s": rate(55.0),
    }
    return CopyRates.model_validate({**values, **changes})


def test_nothing_measured_is_assumed() -> None:
    assert host_rates(None, card()) == Rates()
    assert Rates().source == "assumed"


def test_what_was_measured_counts_with_its_day() -> None:
    """The disk's cold rate, the three kinds of copies."""
    rates = host_rates(measured(copies=copies()), card())
    assert (rates.disk_bytes_s, rates.pageable_bytes_s, rates.cast_bytes_s, rates.pinned_bytes_s) == (
        1.5e9,
        8.4e9,
        4.0e9,
        55.0e9,
    )
    assert rates.source == "measured 2026-11-24"


def test_what_was_not_measured_stays_assumed() -> None:
    """A machine without a GPU has a disk; a disk that only its cache answered for is none."""
    rates = host_rates(measured(), card())
    assert (rates.cast_bytes_s, rates.source) == (
        Rates().cast_bytes_s,
        "disk measured 2026-11-24, copies assumed",
    )
    found = measured().disk
    direct = found.model_copy(update={"cold_bytes_s": NEVER})
    assert host_rates(measured(disk=direct), card()).disk_bytes_s == 1.8e9
    warm = direct.model_copy(update={"direct_bytes_s": NEVER, "warm_bytes_s": Reading(value=9e9, source="test")})
    assert host_rates(measured(disk=warm), card()) == Rates()


def test_the_bus_counts_for_the_card_that_it_was_measured_with() -> None:
    """Another card in the same machine has a link of its own."""
    rates = host_rates(measured(copies=copies()), card("RTX 4080"))
    assert (rates.pageable_bytes_s, rates.pinned_bytes_s) == (8.4e9, None)


def test_what_is_given_goes_before_what_was_measured() -> None:
    rates = host_rates(measured(copies=copies()), card(), disk_gb_s=3.5)
    assert (rates.disk_bytes_s, rates.cast_bytes_s) == (3.5e9, 4.0e9)
    assert rates.source == "disk given, copies measured 2026-11-24"
    given = host_rates(None, card(), disk_gb_s=3.5, copy_gb_s=6)
    assert (given.pageable_bytes_s, given.cast_bytes_s, given.source) == (6e9, 6e9, "given")


def test_a_load_is_its_files_and_its_copies() -> None:
    """The hub's fp32 transformer is cast on the way; what keeps the precision of its file is copied as it is."""
    rates = host_rates(measured(copies=copies()), card())
    times = TimeModel(card(), time_factors(), rates).stages(REFERENCE, TARGET)
    assert times is not None
    text, vae = work.text_encoder_bytes(Precision.BF16), work.vae_bytes(Precision.FP32)
    read_s = (work.transformer_bytes(Precision.FP32) + text + vae) / 1.5e9
    assert times["load"].mid == pytest.approx(
        read_s + work.transformer_bytes(Precision.BF16) / 4.0e9 + (text + vae) / 8.4e9
    )


def test_streaming_is_bound_by_the_measured_bus() -> None:
    """At a tenth of the rate a streamed step takes its transfer's time; a resident one stays."""
    streamed = Configuration.of(recipe("low_8g"))
    slow = Rates(pinned_bytes_s=1e9)
    fast, slowed = TimeModel(card(), time_factors()), TimeModel(card(), time_factors(), slow)
    assert (slowed.step_s(streamed, TARGET) or 0) > 2 * 2 * work.LAYERS * work.BLOCK_PARAMETERS / 1e9
    assert slowed.step_s(REFERENCE, TARGET) == fast.step_s(REFERENCE, TARGET)


def test_each_part_has_its_own_day() -> None:
    """The disk was measured again, the copies were not asked for."""
    later = datetime(2026, 12, 1, tzinfo=UTC)
    rates = host_rates(measured(copies=copies(), disk_measured_at=later), card())
    assert rates.source == "disk measured 2026-12-01, copies measured 2026-11-24"
