"""The one place where statistics are computed from raw repeats and samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

_MIN_FOR_P95 = 20  # below 20 values the 95th percentile is the maximum by another name

_DRAWS = 10_000


class Summary(BaseModel):
    """Description of a set of measured values. ``None`` where ``n`` does not carry the figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    """Number of finite values."""
    median: float | None
    mad: float | None
    """Median absolute deviation from the median (not scaled)."""
    minimum: float | None
    maximum: float | None
    mean: float | None
    stdev: float | None
    """Sample standard deviation (ddof=1), None below two values."""
    p95: float | None
    """95th percentile (inclusive interpolation), None below 20 values."""


def summarize(values: Sequence[float | None]) -> Summary:
    """Summary of ``values``; missing (None) values are left out of ``n``, a NaN or infinity raises ``ValueError``."""
    present = [float(value) for value in values if value is not None]
    if not all(math.isfinite(value) for value in present):
        raise ValueError("a measured value is not finite")
    if not present:
        return Summary(n=0, median=None, mad=None, minimum=None, maximum=None, mean=None, stdev=None, p95=None)
    median = statistics.median(present)
    return Summary(
        n=len(present),
        median=median,
        mad=statistics.median(abs(value - median) for value in present),
        minimum=min(present),
        maximum=max(present),
        mean=statistics.fmean(present),
        stdev=statistics.stdev(present) if len(present) >= 2 else None,
        p95=statistics.quantiles(present, n=20, method="inclusive")[18] if len(present) >= _MIN_FOR_P95 else None,
    )


class Ratio(BaseModel):
    """A ratio with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    mid: float
    high: float


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Median of one sample by that of another, with a percentile bootstrap of both (Efron), always the same draws.

    Raises ``ValueError`` below two values a side, and for a value that is not positive and finite.
    """
    import numpy as np

    samples = [np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)]
    if any(len(sample) < 2 or not np.all(np.isfinite(sample) & (sample > 0)) for sample in samples):
        raise ValueError("a ratio of medians needs two positive values on each side")
    generator = np.random.default_rng(22)
    drawn = [np.median(generator.choice(sample, (_DRAWS, len(sample))), axis=1) for sample in samples]
    low, high = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    return Ratio(low=float(low), mid=float(np.median(samples[0]) / np.median(samples[1])), high=float(high))


def time_weighted_mean(times_s: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Mean over time of a sampled quantity (trapezoids between neighbours); None below two present values."""
    area = integral(times_s, values)
    present = [t for t, value in zip(times_s, values, strict=True) if value is not None]
    if area is None or present[-1] <= present[0]:
        return None
    return area / (present[-1] - present[0])


def integral(times_s: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Trapezoid integral over seconds of the present values (watts give joules); None below two of them."""
    points = [(t, value) for t, value in zip(times_s, values, strict=True) if value is not None]
    if len(points) < 2:
        return None
    return sum((t1 - t0) * (v0 + v1) / 2 for (t0, v0), (t1, v1) in pairwise(points))
