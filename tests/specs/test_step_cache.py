"""Which steps a step cache leaves out, said before anything runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22core.specs import WORKLOADS, CacheMethod, StepCache

PUBLISHED = StepCache(method=CacheMethod.MAGNITUDE, threshold=0.06)


@pytest.mark.parametrize(("name", "share"), [("2s-720p", 0.5), ("2s-720p-i2v", 0.52)])
def test_with_the_published_settings_half_of_fifty_steps_is_left_out(name: str, share: float) -> None:
    """As the published times say: 5 min 24 s instead of 10 min 39 s."""
    assert PUBLISHED.computed_share(WORKLOADS[name]) == share


def test_the_first_block_decides_when_it_runs() -> None:
    cache = StepCache(method=CacheMethod.FIRST_BLOCK, threshold=0.05)
    assert cache.left_out(WORKLOADS["2s-720p"]) is None
    assert cache.computed_share(WORKLOADS["2s-720p"]) is None


@given(
    steps=st.integers(1, 200),
    threshold=st.floats(0.001, 1),
    most=st.integers(1, 5),
    first=st.floats(0, 1),
)
def test_the_first_steps_are_computed_and_no_more_than_allowed_left_out_in_a_row(
    steps: int, threshold: float, most: int, first: float
) -> None:
    cache = StepCache(method=CacheMethod.MAGNITUDE, threshold=threshold, most_in_a_row=most, first_share=first)
    workload = WORKLOADS["2s-720p"].model_copy(update={"steps": steps})
    left_out = cache.left_out(workload)
    assert left_out is not None
    assert all(max(1, round(first * steps - 0.5)) <= step < steps for step in left_out)
    assert not any(all(step + k in left_out for k in range(most + 1)) for step in left_out)
    assert len(cache.magnitudes(workload)) == steps
